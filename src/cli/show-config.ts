import { type Config, ConfigError, readSettings } from '../config/config.ts'
import { readEnv } from './read-config.ts'
import { printable, printRows, say } from './terminal.ts'

/**
 * `todo-api config`: prints every setting in force and its source, then throws `ConfigError` with all mistakes. The value of
 * a wrong one is not shown: a secret may be in the wrong place.
 */
export async function configCommand(_: string, { json = false }: { json?: boolean }): Promise<void> {
  const { env, file } = readEnv()
  const { config, settings, mistakes } = readSettings(env)
  const wrong = new Set(mistakes.map(mistake => mistake.split(' ', 1)[0]!.replace(/_FILE$/, '')))
  const rows = [...settings].map(([name, { fallback, isSecret }]) => {
    const source = [name, ...(isSecret ? [`${name}_FILE`] : [])].find(name => env[name]?.trim())
    if (!source) return { name, value: fallback ?? '(not set)', from: 'default' }
    const where = env[source] === file[source] ? '.env' : 'environment'
    if (wrong.has(name))
      return { name, value: '(wrong)', from: source === name ? where : `${source} in ${where}` }
    const text = printable(withoutSecrets(env[source]!.trim()))
    return {
      name,
      value: isSecret ? hidden(name, config) : text,
      from: source === name ? where : `file ${text}, named in ${where}`,
    }
  })
  await printRows(json, rows, { NAME: row => row.name, VALUE: row => row.value, FROM: row => row.from })
  for (const { name, nearest } of config.misspelled)
    say(`there is no setting ${printable(name)}; the nearest is ${nearest}`)
  if (mistakes.length > 0) throw new ConfigError(mistakes)
}

function hidden(name: string, { database }: Config): string {
  return name === 'DATABASE_URL' && database.kind === 'postgres'
    ? printable(withoutPassword(database.url))
    : '(hidden)'
}

/** An address without what opens it, often a token alone; any other value as it is. */
const withoutSecrets = (value: string) =>
  value.replace(/^(\w+:\/*)[^/?#]*@/, '$1(hidden)@').replace(/^(\w+:[^?#]*)[?#].*/, '$1?(hidden)')

/** The address of a database without its passwords. */
const withoutPassword = (url: string) =>
  url
    .replace(/^(\w+:\/\/[^/@:]*):[^/]*@/, '$1:(hidden)@')
    .replace(/([?&][^=&]*password[^=&]*=)[^&]*/gi, '$1(hidden)')
