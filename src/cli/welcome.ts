import { join, resolve } from 'node:path'
import { version } from '../../package.json'
import type { Config } from '../config/config.ts'
import { secretName } from '../config/data-dir.ts'
import { isSocket, parseDatabaseUrl } from '../config/database-url.ts'
import { printable } from './terminal.ts'

/** What a user at a terminal needs to know of a service that listens at `url`. */
export function welcome(config: Config, url: string): string {
  const lines = [
    ['API', `${url}api/v1`],
    ['Docs', `${url}docs`],
    ['Data', describeDatabase(config)],
    ['Secret', describeSecret(config)],
    ['Origins', describeOrigins(config)],
    ['Stop', 'Ctrl+C'],
  ]
  const shown = lines.map(([name, text]) => `  ${name!.padEnd(8)} ${printable(text!)}\n`)
  return `\ntodo-api ${version}\n\n${shown.join('')}\n`
}

/** Without user and password. */
function describeDatabase({ database }: Config): string {
  if (database.kind === 'embedded') return `${resolve(database.dataDir)}, with an embedded PostgreSQL`
  const { hosts, database: name } = parseDatabaseUrl(database.url)
  const places = hosts.map(host => (isSocket(host) ? host.name : `${host.name}:${host.port}`))
  return `PostgreSQL at ${places.join(', ')}${name ? `, database ${name}` : ''}`
}

function describeSecret({ secretKey, dataDir }: Config): string {
  return secretKey
    ? 'set by SECRET_KEY'
    : `${join(resolve(dataDir), secretName)}, generated; it signs the tokens`
}

function describeOrigins({ frontendUrls, environment }: Config): string {
  const local = environment === 'development' ? ', and any port of localhost and 127.0.0.1' : ''
  return `${frontendUrls.join(', ')}${local} may call from a browser`
}
