import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseNetwork } from '../lib/client-address.ts'
import { emailPattern, isNewPassword, passwordBytesMax, passwordLengthMin } from '../lib/credentials.ts'
import { DatabaseUrlError, parseDatabaseUrl } from './database-url.ts'
import { findMisspelled } from './misspelled.ts'

export type Env = Record<string, string | undefined>

/** Where the data is: a PostgreSQL server, or a folder for the embedded database. */
export type DatabaseSettings =
  | { kind: 'postgres'; url: string; poolSize: number; prepare: boolean }
  | { kind: 'embedded'; dataDir: string }

/** All settings, typed. Made once, by `parseConfig`; nothing else reads the environment. Plain data: workers receive it. */
export type Config = ReturnType<typeof readSettings>['config']
export type BackupSettings = NonNullable<Config['backups']>

const environments = ['development', 'production', 'test'] as const
const workersMax = 64

/** All mistakes in the settings at once, by name, without the values. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  constructor(readonly mistakes: string[]) {
    super(`Settings:\n${mistakes.map(mistake => `  ${mistake}`).join('\n')}`)
  }
}

/** Every setting, typed. Throws `ConfigError` with all mistakes. */
export function parseConfig(env: Env): Config {
  const { config, mistakes } = readSettings(env)
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  return config
}

/**
 * Reads every setting from `env`; an empty value counts as unset. A secret may come from a file named by `NAME_FILE`.
 * `config` is valid only if there are no `mistakes`, each of which begins with the name of its setting.
 */
export function readSettings(env: Env) {
  const read = createReader(env)
  const { settings, mistakes, mistake, isSet, text, integer, flag, oneOf } = read

  const environment = oneOf('ENVIRONMENT', environments, 'development')
  const dataDir = text('DATA_DIR', './data')
  const url = databaseUrl(read, dataDir)
  const poolSize = integer('DATABASE_POOL_SIZE', 10, 1, 1000)
  const prepare = flag('DATABASE_PREPARE', true)
  // A malformed address, too, so that the other settings are checked against PostgreSQL.
  const database: DatabaseSettings = isSet('DATABASE_URL')
    ? { kind: 'postgres', url, poolSize, prepare }
    : { kind: 'embedded', dataDir }

  const workers = integer('WORKERS', 1, 1, workersMax)
  if (workers > 1 && database.kind === 'embedded') {
    mistake('WORKERS over 1 needs DATABASE_URL: the embedded database belongs to one process')
  }

  const bcryptCost = integer('BCRYPT_COST', 12, 4, 16)
  if (bcryptCost < 12 && environment !== 'test') {
    mistake('BCRYPT_COST under 12 is for ENVIRONMENT=test only')
  }

  // One core is left for everything else.
  const hashesAtOnce = Math.max(1, Math.floor((availableParallelism() - 1) / workers))

  const port = integer('PORT', 8000, 0, 65535)
  const place = { environment, dataDir, database }
  const config = {
    environment,
    host: withoutBrackets(text('HOST', '127.0.0.1')),
    port,
    /** Processes that share the port. With more than one, a supervisor starts and replaces them. */
    workers,
    /** How long a load balancer has to notice a stop before the listener closes. */
    shutdownDelaySeconds: integer('SHUTDOWN_DELAY_SECONDS', 0, 0, 60),
    database,
    /** Where the embedded database and a generated secret live. */
    dataDir,
    /** `undefined`: to be generated once and kept in `dataDir`. */
    secretKey: secretKey(read, place),
    algorithm: oneOf('ALGORITHM', ['HS256', 'HS384', 'HS512'], 'HS256'),
    accessTokenLifetimeSeconds: 60 * integer('ACCESS_TOKEN_EXPIRE_MINUTES', 1440, 1, 525_600),
    /** Origins whose pages may call with credentials. */
    frontendUrls: frontendUrls(read),
    /** Whether `/mcp` offers the tools for AI assistants. */
    mcp: flag('MCP', true),
    bcryptCost,
    /** How many passwords a process hashes at a time, and how many more may wait: of one address half, near five seconds. */
    hashing: { atOnce: hashesAtOnce, waiting: 50 * hashesAtOnce },
    /** The limits on sign-ins and registrations; 0 turns one off. */
    throttle: {
      /** From one address. */
      loginsPerMinute: integer('LOGIN_LIMIT', 120, 0, 1_000_000),
      /** Wrong passwords for one account in 15 minutes, from everywhere together. */
      failuresPerAccount: integer('LOGIN_FAILURE_LIMIT', 10, 0, 1_000_000),
      /** From one address. */
      registrationsPerHour: integer('REGISTER_LIMIT', 200, 0, 1_000_000),
    },
    /** Whether accounts can be created over the API; otherwise only by `todo-api user create`. */
    registration: oneOf('REGISTRATION', ['open', 'closed'], 'open'),
    /** The account that is created when the database has none. */
    firstUser: firstUser(read),
    /** Proxies whose `X-Forwarded-For` is believed. */
    trustedProxies: trustedProxies(read),
    /** Live streams of one process. */
    streamsMax: integer('STREAMS_MAX', 10_000, 0, 1_000_000),
    /** `undefined`: the service makes none. */
    backups: backups(read, place),
    logLevel: oneOf('LOG_LEVEL', ['debug', 'info', 'warn', 'error'], 'info'),
    /** `undefined`: no metrics. */
    metrics: metrics(read, port),
    /** The variables of OpenTelemetry; `undefined`: no traces. */
    tracing: tracing(read),
    /** Names that mean nothing here, and were probably to be these settings. */
    misspelled: findMisspelled(read),
  }
  return { config, settings, mistakes }
}

/** What other settings depend on. */
interface Place {
  environment: (typeof environments)[number]
  dataDir: string
  database: DatabaseSettings
}

/** One setting, for `todo-api config`. */
interface Setting {
  /** What is in force if it is not set. */
  fallback: string | undefined
  /** Whether its value must not be shown. */
  isSecret: boolean
}

export type Reader = ReturnType<typeof createReader>

/** Reads single settings from the environment, and collects which they are and what is wrong with them. */
export function createReader(env: Env) {
  const settings = new Map<string, Setting>()
  const mistakes: string[] = []
  const mistake = (message: string) => {
    mistakes.push(message)
    return undefined
  }

  const lookUp = (name: string) => env[name]?.trim() || undefined

  /** Whether a secret is there, right or wrong. */
  const isSet = (name: string) => (lookUp(name) ?? lookUp(`${name}_FILE`)) !== undefined

  function note(name: string, fallback?: string, isSecret = false) {
    settings.set(name, { fallback, isSecret })
  }

  function text(name: string): string | undefined
  function text(name: string, fallback: string): string
  function text(name: string, fallback?: string) {
    note(name, fallback)
    return lookUp(name) ?? fallback
  }

  /** `fallback` says in words what is in force without it. */
  function secret(name: string, fallback?: string): string | undefined {
    note(name, fallback, true)
    const file = lookUp(`${name}_FILE`)
    if (!file) return lookUp(name)
    if (lookUp(name)) return mistake(`${name} and ${name}_FILE are both set; keep one`)
    try {
      return readFileSync(file, 'utf8').trim() || mistake(`${name}_FILE names an empty file`)
    } catch (error) {
      return mistake(`${name}_FILE cannot be read (${(error as NodeJS.ErrnoException).code})`)
    }
  }

  function oneOf<const T extends string>(name: string, allowed: readonly T[], fallback: T): T {
    const value = text(name, fallback)
    if (allowed.includes(value as T)) return value as T
    mistake(`${name} must be one of ${allowed.join(', ')}`)
    return fallback
  }

  function integer(name: string, fallback: number, min: number, max: number): number {
    const value = text(name, String(fallback))
    const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN
    if (number >= min && number <= max) return number
    mistake(`${name} must be a whole number from ${min} to ${max}`)
    return fallback
  }

  function flag(name: string, fallback: boolean): boolean {
    return oneOf(name, ['true', 'false'], fallback ? 'true' : 'false') === 'true'
  }

  return { env, settings, mistakes, mistake, note, isSet, text, secret, oneOf, integer, flag }
}

function databaseUrl({ secret, mistake }: Reader, dataDir: string): string {
  const value = secret('DATABASE_URL', `(embedded database in ${dataDir})`)
  if (value === undefined) return ''
  try {
    parseDatabaseUrl(value)
  } catch (error) {
    if (!(error instanceof DatabaseUrlError)) throw error
    for (const about of error.mistakes) mistake(`DATABASE_URL ${about}`)
  }
  return value
}

function frontendUrls({ text, mistake }: Reader): string[] {
  const urls = text('FRONTEND_URL', 'http://localhost:3000').split(',')
  const origins = urls.map(originOf).filter(origin => origin !== undefined)
  if (origins.length < urls.length) {
    mistake(
      'FRONTEND_URL must be a comma list of origins such as https://app.example.com or capacitor://localhost: no path, no *, no null, no file://',
    )
  }
  return origins
}

/** No page has an origin of these schemes. That of `file:` is `null`, as of every sandboxed frame. */
const schemesWithoutPages = ['ftp:', 'ws:', 'wss:', 'file:']

/** The origin that an address names and nothing else, as browsers send it: of other schemes than http, `URL.origin` is `null`. */
function originOf(address: string): string | undefined {
  const url = URL.parse(address)
  if (!url || url.host === '' || url.host.includes('*') || schemesWithoutPages.includes(url.protocol))
    return undefined
  const origin = `${url.protocol}//${url.host}`
  return [origin, `${origin}/`].includes(url.href) ? origin : undefined
}

const secretLengthMin = 32

function secretKey({ isSet, secret, mistake }: Reader, place: Place): string | undefined {
  const { environment, dataDir, database } = place
  const value = secret('SECRET_KEY', `(kept in ${dataDir}/secret_key)`)
  if (value === undefined) {
    if (environment === 'production' && database.kind === 'postgres' && !isSet('SECRET_KEY'))
      mistake('SECRET_KEY must be set in production with DATABASE_URL: every replica needs the same one')
    return undefined
  }
  if ([...value].length < secretLengthMin) {
    return mistake(
      `SECRET_KEY must have at least ${secretLengthMin} characters; make one with: openssl rand -hex 32`,
    )
  }
  // Tests use readable secrets.
  if (environment !== 'test' && isGuessable(value)) {
    return mistake(
      'SECRET_KEY is a placeholder, a published example or a pattern; make one with: openssl rand -hex 32',
    )
  }
  return value
}

/** Words of placeholders and examples. A random secret contains one of them once in ten million times. */
const placeholderWord =
  /secret|change|example|password|replace|placeholder|default|insecure|openssl|12345678|abcdefgh/
/** That of the FastAPI tutorial, which many installations have copied. */
const publishedSecrets = ['09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7']
const differentCharactersMin = 8

/** Whether a secret is easy to guess: a placeholder, a published one, a repeated pattern. */
function isGuessable(secret: string): boolean {
  const text = secret.toLowerCase()
  const repeats = (length: number) => text.slice(length) === text.slice(0, -length)
  return (
    publishedSecrets.includes(text) ||
    placeholderWord.test(text) ||
    new Set(text).size < differentCharactersMin ||
    Array.from({ length: text.length >> 1 }, (_, i) => i + 1).some(repeats)
  )
}

function firstUser({ isSet, text, secret, mistake }: Reader) {
  const email = text('FIRST_USER_EMAIL')
  const password = secret('FIRST_USER_PASSWORD')
  if (isSet('FIRST_USER_PASSWORD') !== (email !== undefined))
    mistake('FIRST_USER_EMAIL and FIRST_USER_PASSWORD_FILE must be set together')
  if (email !== undefined && !emailPattern.test(email)) mistake('FIRST_USER_EMAIL must be an e-mail address')
  if (password !== undefined && !isNewPassword(password))
    mistake(
      `FIRST_USER_PASSWORD must have at least ${passwordLengthMin} characters and at most ${passwordBytesMax} bytes`,
    )
  return email !== undefined && password !== undefined ? { email, password } : undefined
}

function trustedProxies({ text, mistake }: Reader): string[] {
  const networks =
    text('TRUSTED_PROXIES')
      ?.split(',')
      .map(network => network.trim()) ?? []
  try {
    networks.forEach(parseNetwork)
    return networks
  } catch {
    mistake('TRUSTED_PROXIES must be a comma list of addresses or networks such as 10.0.0.0/8')
    return []
  }
}

const tokenLengthMin = 16

/** `/metrics` on a port of its own, or as a route of the API with a token. */
function metrics({ text, secret, integer, mistake }: Reader, mainPort: number) {
  const token = secret('METRICS_TOKEN')
  const hasPort = text('METRICS_PORT') !== undefined
  const port = hasPort ? integer('METRICS_PORT', 0, 0, 65535) : undefined
  const host = hasPort ? text('METRICS_HOST', '127.0.0.1') : text('METRICS_HOST')
  if (host && !hasPort) mistake('METRICS_HOST needs METRICS_PORT')
  if (port && port === mainPort) mistake('METRICS_PORT and PORT must differ')
  if (token && token.length < tokenLengthMin) {
    mistake(`METRICS_TOKEN must have at least ${tokenLengthMin} characters`)
  }
  if (token === undefined && port === undefined) return undefined
  return { host: withoutBrackets(host ?? ''), port, token }
}

const secondsOf = { s: 1, m: 60, h: 60 * 60, d: 24 * 60 * 60 }
const everySecondsMax = 14 * secondsOf.d

/** Backups of the embedded database: `keep` of them at most. */
function backups({ text, integer, mistake }: Reader, { environment, dataDir, database }: Place) {
  const every = text('BACKUP_EVERY')
  const keep = integer('BACKUP_KEEP', 7, 1, 10_000)
  const dir = text('BACKUP_DIR', join(dataDir, 'backups'))
  if (every === undefined) return undefined
  if (database.kind === 'postgres') {
    return mistake(
      'BACKUP_EVERY is for the embedded database; for PostgreSQL use pg_dump, or the backups of its host',
    )
  }
  const [, number, unit] = every.match(/^(\d{1,6})([smhd])$/) ?? []
  const everySeconds = Number(number) * secondsOf[unit as keyof typeof secondsOf]
  // Tests cannot wait for a minute.
  const everySecondsMin = environment === 'test' ? 1 : secondsOf.m
  if (everySeconds >= everySecondsMin && everySeconds <= everySecondsMax) return { everySeconds, keep, dir }
  return mistake('BACKUP_EVERY must look like 30m, 6h or 1d, and be from 1m to 14d')
}

/** `name=value`, or nothing. */
const header = /^\s*([\w!#$%&'*+.^`|~-]+\s*=.*)?$/s

/** The names are OpenTelemetry's (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables). */
function tracing({ env, note, text, oneOf, mistake }: Reader): Env | undefined {
  /** What is set for traces or, without that, for all signals; and the name of the setting that decides. */
  const ofTraces = (part: string) => {
    const own = `OTEL_EXPORTER_OTLP_TRACES_${part}`
    const name = text(own) === undefined ? `OTEL_EXPORTER_OTLP_${part}` : own
    return { name, value: text(name) }
  }
  const endpoint = ofTraces('ENDPOINT')
  const exporter = oneOf('OTEL_TRACES_EXPORTER', ['otlp', 'none'], endpoint.value ? 'otlp' : 'none')
  const protocol = ofTraces('PROTOCOL')
  if (exporter === 'none' || text('OTEL_SDK_DISABLED')?.toLowerCase() === 'true') return undefined
  if (protocol.value === 'grpc')
    mistake(`${protocol.name} must be http/json: traces go over HTTP, which a collector takes on 4318`)
  if (endpoint.value && !(/^https?:/.test(endpoint.value) && URL.canParse(endpoint.value)))
    mistake(`${endpoint.name} must look like http://collector:4318`)
  // The exporter reads them itself: those that are set are in force.
  const own = Object.entries(env).filter(([name]) => name.startsWith('OTEL_'))
  for (const [name, value = ''] of own) {
    const isHeaders = name.endsWith('_HEADERS')
    note(name, undefined, isHeaders)
    // The exporter drops one that is not, without a word, or with one that repeats it.
    if (isHeaders && !value.split(',').every(part => header.test(part)))
      mistake(`${name} must look like name=value,name=value`)
  }
  return Object.fromEntries(own)
}

/** An IPv6 address may be written as in a URL. */
const withoutBrackets = (host: string) => host.replace(/^\[(.+)\]$/, '$1')
