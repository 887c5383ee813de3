import { type Config, type Env, parseConfig } from '../config/config.ts'
import { readEnv } from './env.ts'
import { print, printable, table } from './terminal.ts'

/** One setting as it is in force. */
interface Setting {
  name: string
  /** With secrets, and the password of an address, hidden. */
  value: string
  /** Where the value comes from. */
  from: string
}

/** `todo-api config`: prints every setting in force and its source. Throws `ConfigError` with all mistakes. */
export async function configCommand(_: string, { json = false }: { json?: boolean }): Promise<void> {
  const settings = listSettings(readEnv())
  if (json) await print(settings.map(setting => `${JSON.stringify(setting)}\n`).join(''))
  else
    await print(
      table([['NAME', 'VALUE', 'FROM'], ...settings.map(({ name, value, from }) => [name, value, from])]),
    )
}

/** The settings that `parseConfig` asks for, in its order: so none is missing here. */
export function listSettings({ env, file }: { env: Env; file: Env }): Setting[] {
  const names = new Set<string>()
  const noted = new Proxy(env, {
    get(target, name: string) {
      names.add(name)
      return target[name]
    },
    // Code that lists the whole environment reads no setting in particular.
    ownKeys: () => [],
  })
  const config = parseConfig(noted)
  // OpenTelemetry reads its own variables: those that are set are in force.
  if (config.tracing) for (const name of Object.keys(env)) if (name.startsWith('OTEL_')) names.add(name)
  const hasFile = (name: string) => names.has(`${name}_FILE`)
  return [...names]
    .filter(name => !(name.endsWith('_FILE') && names.has(name.slice(0, -'_FILE'.length))))
    .map(name => describe(name, { env, file, config, isSecret: hasFile(name) || name.endsWith('_HEADERS') }))
}

interface Known {
  env: Env
  file: Env
  config: Config
  isSecret: boolean
}

function describe(name: string, { env, file, config, isSecret }: Known): Setting {
  const source = [name, ...(isSecret ? [`${name}_FILE`] : [])].find(name => env[name]?.trim())
  if (!source) return { name, value: defaults[name]?.(config) ?? '(not set)', from: 'default' }
  const where = env[source] === file[source] ? '.env' : 'environment'
  return {
    name,
    value: isSecret ? hidden(name, config) : printable(env[name]!.trim()),
    from: source === name ? where : `file ${printable(env[source]!.trim())}, named in ${where}`,
  }
}

function hidden(name: string, { database }: Config): string {
  return name === 'DATABASE_URL' && database.kind === 'postgres' ? withoutPassword(database.url) : '(hidden)'
}

/** The address of a database without its password, wherever that stands. */
function withoutPassword(url: string): string {
  return printable(
    url
      .replace(/^(\w+:\/\/[^/@:]*):[^/]*@/, '$1:(hidden)@')
      .replace(/([?&][^=&]*password[^=&]*=)[^&]*/gi, '$1(hidden)'),
  )
}

/** The defaults, as they are shown. */
const defaults: Record<string, (config: Config) => string> = {
  ENVIRONMENT: config => config.environment,
  DATABASE_URL: config => `(embedded database in ${config.dataDir})`,
  DATABASE_POOL_SIZE: ({ database }) => (database.kind === 'postgres' ? String(database.poolSize) : ''),
  DATABASE_PREPARE: ({ database }) => (database.kind === 'postgres' ? String(database.prepare) : ''),
  DATA_DIR: config => config.dataDir,
  SECRET_KEY: config => `(kept in ${config.dataDir}/secret_key)`,
  ALGORITHM: config => config.algorithm,
  ACCESS_TOKEN_EXPIRE_MINUTES: config => String(config.accessTokenLifetimeSeconds / 60),
  FRONTEND_URL: config => config.frontendUrls.join(','),
  HOST: config => config.host,
  PORT: config => String(config.port),
  WORKERS: config => String(config.workers),
  SHUTDOWN_DELAY_SECONDS: config => String(config.shutdownDelaySeconds),
  BCRYPT_COST: config => String(config.bcryptCost),
  LOGIN_LIMIT: config => String(config.throttle.loginsPerMinute),
  LOGIN_FAILURE_LIMIT: config => String(config.throttle.failuresPerAccount),
  REGISTER_LIMIT: config => String(config.throttle.registrationsPerHour),
  REGISTRATION: config => config.registration,
  MCP: config => String(config.mcp),
  STREAMS_MAX: config => String(config.streamsMax),
  BACKUP_KEEP: () => '7',
  BACKUP_DIR: config => `${config.dataDir}/backups`,
  LOG_LEVEL: config => config.logLevel,
}
