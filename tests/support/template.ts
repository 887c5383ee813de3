import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import type { DatabaseSettings } from '../../src/config/config.ts'
import { clusterName } from '../../src/config/data-dir.ts'
import { openEmbedded } from '../../src/db/embedded/embedded.ts'
import { migrate, migrations } from '../../src/db/migrator.ts'
import { openDriver } from '../../src/db/open-driver.ts'
import { withPort } from './ports.ts'
import { execute, startGuardian, startPostgresServer } from './postgres-server.ts'

/** A database of the caller's own, with every migration applied. */
export interface PrivateDatabase {
  url: string
  /** The same without the proxy that `url` may lead through: for tests that look into a session of the server. */
  directUrl: string
  /** Ends every session of it and deletes it. */
  drop(): Promise<void>
}

/** Makes one, as a copy of a template that the first caller migrates. */
export async function privateDatabase(): Promise<PrivateDatabase> {
  const server = await serverUrl()
  ready ??= makeTemplate(server)
  await ready
  return create(server, template)
}

/** The same without any migration, for tests of the migrations themselves. */
export async function emptyDatabase(): Promise<PrivateDatabase> {
  return create(await serverUrl(), 'template1')
}

async function create(server: string, copyOf: string): Promise<PrivateDatabase> {
  const name = `test_${crypto.randomUUID().replaceAll('-', '')}`
  // By default PostgreSQL logs every page of the copy, which takes it four times the CPU.
  await execute(server, `create database ${name} template ${copyOf} strategy file_copy`)
  const directUrl = withDatabase(server, name)
  return {
    url: throughProxy(directUrl),
    directUrl,
    async drop() {
      await execute(server, `drop database if exists ${name} with (force)`)
    },
  }
}

let own: Promise<string> | undefined
let ready: Promise<void> | undefined

/** The runner's server; without the runner (plain `bun test`) one for this process, which ends with it. */
function serverUrl(): Promise<string> {
  const given = process.env.TEST_POSTGRES_URL
  own ??= given ? Promise.resolve(given) : startPostgresServer().then(server => server.url)
  return own
}

/** Changes with the migrations, so that a server that lives longer than a run never has an old one. */
const template = `template_${Bun.hash(migrations.map(migration => migration.hash).join()).toString(16)}`

/** Several test processes share a server: the first one makes the template, the others wait for it. */
async function makeTemplate(server: string) {
  const sql = postgres(server, { max: 1, onnotice: () => {}, fetch_types: false })
  try {
    await sql`select pg_advisory_lock(1)`
    // Marked as a template only when it is complete: a run that was killed leaves one without the mark.
    const [found] = await sql`select datistemplate as complete from pg_database where datname = ${template}`
    if (found?.complete) return
    await sql.unsafe(`drop database if exists ${template} with (force)`)
    await sql.unsafe(`create database ${template}`)
    await migrateDatabase({
      kind: 'postgres',
      url: withDatabase(server, template),
      poolSize: 1,
      prepare: true,
    })
    await sql.unsafe(`alter database ${template} is_template true`)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Puts an embedded database into a folder: a copy of one that the first caller in this process migrates. */
export async function addEmbeddedDatabase(dataDir: string): Promise<void> {
  embedded ??= makeEmbedded(template => migrateDatabase({ kind: 'embedded', dataDir: template }))
  copyCluster(await embedded, dataDir)
}

/** The same without any migration, for tests of the migrations themselves: a first start makes none. */
export async function addEmptyEmbeddedDatabase(dataDir: string): Promise<void> {
  emptyEmbedded ??= makeEmbedded(makeEmpty)
  copyCluster(await emptyEmbedded, dataDir)
}

let embedded: Promise<string> | undefined
let emptyEmbedded: Promise<string> | undefined

async function makeEmbedded(make: (dataDir: string) => Promise<void>): Promise<string> {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-template-'))
  startGuardian(dataDir)
  await make(dataDir)
  return dataDir
}

/** By what undoes the migrations: initdb takes several seconds. */
async function makeEmpty(dataDir: string) {
  await addEmbeddedDatabase(dataDir)
  const driver = await openEmbedded({ dataDir })
  await driver.dedicatedConnection(connection =>
    connection.execute('drop schema drizzle, public cascade; create schema public'),
  )
  await driver.close()
}

function copyCluster(from: string, to: string) {
  cpSync(join(from, clusterName), join(to, clusterName), { recursive: true })
}

async function migrateDatabase(settings: DatabaseSettings) {
  const driver = await openDriver(settings)
  await migrate(driver, [])
  await driver.close()
}

function withDatabase(url: string, name: string): string {
  const address = new URL(url)
  address.pathname = `/${name}`
  return address.href
}

/** With TEST_PGBOUNCER=1 the runner has put a proxy in front of its server, and the services under test talk to that. */
function throughProxy(url: string): string {
  const port = process.env.TEST_PROXY_PORT
  return port ? withPort(url, port) : url
}
