import { accessSync, constants, existsSync, mkdtempSync, rmdirSync, statfsSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { getTableName } from 'drizzle-orm'
import { type Config, ConfigError, parseConfig } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { appliedMigrations, migrations } from '../db/migrator.ts'
import { AppError } from '../lib/errors.ts'
import { registry } from '../modules/table-registry.ts'
import { connectToService } from './control.ts'
import { readEnv } from './env.ts'
import { isAbsent, openDatabase } from './open-database.ts'
import { print } from './terminal.ts'

type Verdict = 'ok' | 'warn' | 'fail'

/** Says how something is, and what to do about it. */
type Tell = (verdict: Verdict, what: string, about: string) => void

const mebibyte = 1024 * 1024

/** Looks at everything that the service needs, one line each, and changes nothing. Gives whether nothing failed. */
export async function doctorCommand(): Promise<boolean> {
  const lines: string[] = []
  let isWell = true
  const tell: Tell = (verdict, what, about) => {
    if (verdict === 'fail') isWell = false
    lines.push(`${verdict.padEnd(4)}  ${what.padEnd(11)}  ${about}\n`)
  }
  await examine(tell)
  await print(lines.join(''))
  return isWell
}

async function examine(tell: Tell): Promise<void> {
  const config = examineSettings(tell)
  if (!config) return
  examineDataDir(config, tell)
  let driver: Driver | undefined
  try {
    driver = await openQuietly(config, tell)
    if (driver) await examineDatabase(driver, config, tell)
  } catch (error) {
    tell('fail', 'database', `${reason(error)}; is the address right, and is it running?`)
  } finally {
    await driver?.close()
  }
}

function examineSettings(tell: Tell): Config | undefined {
  try {
    const config = parseConfig(readEnv().env)
    tell('ok', 'settings', 'valid; `todo-api config` lists them')
    examineWorkers(config, tell)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const mistake of error.mistakes) tell('fail', 'settings', mistake)
    return undefined
  }
}

function examineWorkers({ workers }: Config, tell: Tell): void {
  if (workers === 1) return
  const cores = availableParallelism()
  const about = `${workers} on ${cores} ${cores === 1 ? 'core' : 'cores'}`
  if (workers <= cores) tell('ok', 'workers', about)
  else tell('warn', 'workers', `${about}; more than cores gain nothing: lower WORKERS`)
}

/** Needed for the embedded database, and for a secret that the service makes for itself. */
function examineDataDir({ dataDir, database, secretKey }: Config, tell: Tell): void {
  if (database.kind === 'postgres' && secretKey) return
  if (!existsSync(dataDir)) {
    tell('ok', 'data folder', `${dataDir} is made at the first start`)
    return
  }
  try {
    accessSync(dataDir, constants.R_OK | constants.W_OK | constants.X_OK)
    // Rights say little on a read-only or a network file system.
    rmdirSync(mkdtempSync(join(dataDir, '.doctor-')))
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    tell(
      'fail',
      'data folder',
      `${dataDir} cannot be written to (${code}); make it belong to the service’s user`,
    )
    return
  }
  const others = statSync(dataDir).mode & 0o077
  if (others) tell('warn', 'data folder', `other users may look into ${dataDir}; chmod 700 ${dataDir}`)
  const { bavail, bsize } = statfsSync(dataDir)
  const free = (bavail * bsize) / mebibyte
  const about = `${dataDir}, ${Math.floor(free).toLocaleString('en')} MiB free`
  // Below the first the embedded database takes no writes.
  if (free < 64) tell('fail', 'data folder', `${about}; the database takes no writes: make room`)
  else if (free < 512) tell('warn', 'data folder', `${about}; make room before it runs out`)
  else tell('ok', 'data folder', about)
}

/** The database, unless looking at it would make it. */
async function openQuietly(config: Config, tell: Tell): Promise<Driver | undefined> {
  const { database } = config
  if (database.kind === 'embedded') {
    if (isAbsent(config)) {
      tell('ok', 'database', 'embedded, made at the first start')
      return undefined
    }
    const runs = (await connectToService(database.dataDir)) !== undefined
    tell('ok', 'service', runs ? 'it runs on this data folder' : 'none runs on this data folder')
  }
  return openDatabase(config)
}

async function examineDatabase(driver: Driver, { database, workers }: Config, tell: Tell): Promise<void> {
  // Connecting takes its time, and what is measured here is the answer.
  await driver.query('select 1', [])
  const begun = performance.now()
  const asked = Date.now()
  const [row] = await driver.query(
    `select current_setting('server_version'), current_setting('server_version_num')::int,
            current_setting('server_encoding'), current_setting('TimeZone'),
            current_setting('transaction_read_only') = 'on', pg_is_in_recovery(),
            (extract(epoch from clock_timestamp()) * 1000)::bigint, current_setting('max_connections')::int,
            current_setting('statement_timeout')`,
    [],
  )
  const [version, number, encoding, zone, readOnly, standby, clock, connectionsMax, timeLimit] = row as [
    ...[string, number, string, string, boolean, boolean, number, number, string],
  ]
  const ms = Math.round(performance.now() - begun)
  const what = `${driver.kind === 'embedded' ? 'embedded ' : ''}PostgreSQL ${version}, answered in ${ms} ms`
  if (number < 150000) tell('warn', 'database', `${what}; tested with 15 to 18: upgrade it`)
  else tell('ok', 'database', what)

  if (encoding === 'UTF8') tell('ok', 'encoding', encoding)
  else
    tell(
      'fail',
      'encoding',
      `${encoding}; make a database with: create database … encoding 'UTF8' template template0`,
    )

  if (zone === 'UTC') tell('ok', 'time zone', zone)
  else
    tell(
      'fail',
      'time zone',
      `sessions have ${zone}; a proxy drops the setting: alter role … set timezone = 'UTC'`,
    )

  if (database.kind === 'postgres') {
    if (timeLimit === '0') {
      tell('warn', 'time limits', `a proxy drops them: alter role … set statement_timeout = '1800ms'`)
    }
    const connections = workers * database.poolSize
    const share = `up to ${connections} of ${connectionsMax} connections a replica`
    if (connections > connectionsMax * 0.8) tell('warn', 'connections', `${share}; lower DATABASE_POOL_SIZE`)
    else tell('ok', 'connections', share)
  }
  examineClock(clock - (asked + ms / 2), tell)
  await examineMigrations(driver, tell, standby || readOnly)
}

function examineClock(differenceMs: number, tell: Tell): void {
  const seconds = Math.abs(differenceMs / 1000)
  const about = `the database’s differs from this machine’s by ${seconds.toFixed(1)} s`
  if (seconds < 2) tell('ok', 'clock', about)
  else
    tell(seconds < 30 ? 'warn' : 'fail', 'clock', `${about}; run NTP on both: tokens are judged by the time`)
}

async function examineMigrations(driver: Driver, tell: Tell, readOnly: boolean): Promise<void> {
  const applied = await appliedMigrations(driver)
  const pending = migrations.filter(({ when }) => !applied.has(when))
  const newer = applied.size - (migrations.length - pending.length)
  if (newer > 0) tell('warn', 'migrations', `${newer} from a newer todo-api are there; upgrade this one`)
  if (pending.length > 0)
    tell('warn', 'migrations', `${pending.length} pending; the next start applies them, or: todo-api migrate`)
  else if (newer === 0) tell('ok', 'migrations', `all ${migrations.length} applied`)

  if (readOnly)
    tell('fail', 'writing', 'the server takes no writes (a standby?); name the primary in DATABASE_URL')
  else if (pending.length === 0) await examineRights(driver, tell)
  else await examineRightsToCreate(driver, tell)
}

/** A statement that would change rows if there were any: the rights are checked all the same. */
async function examineRights(driver: Driver, tell: Tell): Promise<void> {
  const tables = registry.map(({ table }) => getTableName(table))
  try {
    for (const table of tables) await driver.query(`delete from ${table} where false`, [])
    await driver.query('insert into rate_limits (key) select null where false', [])
    tell('ok', 'writing', 'allowed on every table')
  } catch (error) {
    tell('fail', 'writing', `${reason(error)}; grant the role of DATABASE_URL all rights on the tables`)
  }
}

/** What the migrations need. */
async function examineRightsToCreate(driver: Driver, tell: Tell): Promise<void> {
  const [row] = await driver.query(
    `select has_database_privilege(current_database(), 'create') and has_schema_privilege('public', 'create')`,
    [],
  )
  if (row![0]) tell('ok', 'writing', 'allowed to make tables')
  else tell('fail', 'writing', 'the role may not make tables; make it the owner of the database')
}

function reason(error: unknown): string {
  const shown = error instanceof AppError && error.cause instanceof Error ? error.cause : error
  return shown instanceof Error ? shown.message : 'unknown failure'
}
