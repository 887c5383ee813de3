import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { getTableName } from 'drizzle-orm'
import { type Config, ConfigError, parseConfig } from '../config/config.ts'
import { clusterName, secretName } from '../config/data-dir.ts'
import { undistributedTables } from '../db/distribute.ts'
import type { Driver } from '../db/driver.ts'
import { migrationState, migrations } from '../db/migrator.ts'
import { distributedTables, registry } from '../modules/table-registry.ts'
import { newestBackup } from '../server/backups.ts'
import { connectToService } from './control.ts'
import { diagnose } from './diagnose.ts'
import { readEnv } from './env.ts'
import { isAbsent, openDatabase } from './open-database.ts'
import { print } from './terminal.ts'

type Verdict = 'ok' | 'warn' | 'fail'

/** What was found about one thing, and what to do. */
interface Finding {
  verdict: Verdict
  check: string
  about: string
  cure?: string | undefined
}

type Tell = (verdict: Verdict, check: string, about: string, cure?: string) => void

const mebibyte = 1024 * 1024

/** Looks at everything that the service needs, one line each, and changes nothing. Returns whether nothing failed. */
export async function doctorCommand(_: string, { json = false }: { json?: boolean }): Promise<boolean> {
  const findings: Finding[] = []
  await examine((verdict, check, about, cure) => void findings.push({ verdict, check, about, cure }))
  const isTerminal = process.stdout.isTTY === true
  const format = json ? formatJson : isTerminal ? formatForTerminal : formatLine
  await print(findings.map(finding => `${format(finding)}\n`).join(''))
  return !findings.some(({ verdict }) => verdict === 'fail')
}

const formatJson = (finding: Finding) => JSON.stringify(finding)

const formatLine = ({ verdict, check, about, cure }: Finding) =>
  `${verdict.padEnd(4)}  ${check.padEnd(11)}  ${about}${cure ? `; ${cure}` : ''}`

const marks = { ok: '\x1b[32m✓', warn: '\x1b[33m!', fail: '\x1b[31m✗' }

/** What to do stands in a line of its own. NO_COLOR and a terminal without colours leave the marks. */
function formatForTerminal({ verdict, check, about, cure }: Finding): string {
  const mark = `${marks[verdict]}\x1b[0m`
  const text = `${mark} ${check.padEnd(11)}  ${about}${cure ? `\n               → ${cure}` : ''}`
  return process.stdout.hasColors() ? text : Bun.stripANSI(text)
}

async function examine(tell: Tell): Promise<void> {
  const config = examineSettings(tell)
  if (!config) return
  const isUsable = examineDataDir(config, tell)
  if (!isUsable && config.database.kind === 'embedded') return
  examineBackups(config, tell)
  let driver: Driver | undefined
  try {
    driver = await openQuietly(config, tell)
    if (driver) await examineDatabase(driver, config, tell)
  } catch (error) {
    const { about, cure } = diagnose(error)
    tell('fail', 'database', about, cure)
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
  else tell('warn', 'workers', about, 'lower WORKERS: more than cores gain nothing')
}

/** Needed for the embedded database, and for a secret that the service makes for itself. Returns whether it is usable. */
function examineDataDir({ dataDir, database, secretKey }: Config, tell: Tell): boolean {
  if (database.kind === 'postgres' && secretKey) return true
  const isThere = existsSync(dataDir)
  // The folders above it are made with it.
  const fault = isThere ? faultOf(dataDir) : faultOf(nearestFolder(dataDir))
  if (fault) {
    tell('fail', 'data folder', `${fault.path} cannot be written to (${fault.code})`, cureOf(fault))
    return false
  }
  if (!isThere) {
    tell('ok', 'data folder', `${dataDir} is made at the first start`)
    return true
  }
  const { mode, uid } = statSync(dataDir)
  const user = process.geteuid?.()
  if (user === 0 && uid !== 0) {
    const cure = 'run commands and the service as its owner: what root makes there the owner cannot read'
    tell('warn', 'data folder', `${dataDir} belongs to user ${uid}, and this is root`, cure)
  }
  if (mode & 0o077)
    tell('warn', 'data folder', `other users may look into ${dataDir}`, `chmod 700 ${dataDir}`)
  return examineFreeSpace(dataDir, tell)
}

function examineFreeSpace(dataDir: string, tell: Tell): boolean {
  const { bavail, bsize } = statfsSync(dataDir)
  const free = (bavail * bsize) / mebibyte
  const about = `${dataDir}, ${Math.floor(free).toLocaleString('en')} MiB free`
  // Below the first the embedded database refuses writes.
  if (free < 64) tell('fail', 'data folder', about, 'make room: below 64 MiB the database refuses writes')
  else if (free < 512) tell('warn', 'data folder', about, 'make room before it runs out')
  else tell('ok', 'data folder', about)
  return free >= 64
}

function nearestFolder(path: string): string {
  const parent = dirname(resolve(path))
  return existsSync(parent) ? parent : nearestFolder(parent)
}

interface Fault {
  path: string
  code: string
}

/** What keeps us from writing to a folder, or to what the service keeps in it. */
function faultOf(folder: string): Fault | undefined {
  const files = [clusterName, secretName].map(name => join(folder, name)).filter(path => existsSync(path))
  let path = folder
  try {
    readdirSync(folder)
    for (path of [folder, ...files]) accessSync(path, constants.R_OK | constants.W_OK)
    // Rights say little on a read-only or a network file system.
    path = folder
    rmdirSync(mkdtempSync(join(folder, '.doctor-')))
    return undefined
  } catch (error) {
    return { path, code: (error as NodeJS.ErrnoException).code ?? 'unknown' }
  }
}

function cureOf({ path, code }: Fault): string {
  if (code === 'EROFS')
    return 'the file system is read-only: mount it for writing, or set DATA_DIR to a volume'
  if (code === 'ENOSPC') return 'the disk is full: make room'
  if (code === 'ENOTDIR') return 'a file is in its place: move it, or set DATA_DIR to another folder'
  const [owner, user] = [statSync(path).uid, process.geteuid?.()]
  return owner === user
    ? `chmod u+rwX ${path}`
    : `it belongs to user ${owner}, and this is user ${user}: chown -R ${user} ${path}`
}

/** Backups that the service makes: the newest must be younger than two periods. */
function examineBackups(config: Config, tell: Tell): void {
  const { backups } = config
  if (!backups) return
  const last = newestBackup(backups)
  const about = last
    ? `the newest in ${backups.dir} is of ${last.toISOString()}`
    : `none in ${backups.dir} yet`
  const isLate = last ? Date.now() - last.getTime() > 2 * backups.everySeconds * 1000 : !isAbsent(config)
  if (isLate) tell('warn', 'backups', about, 'start the service, and look for `backup failed` in its log')
  else tell('ok', 'backups', about)
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
  if (number < 150000)
    tell('fail', 'database', what, 'upgrade it: it is older than 15, the oldest that is tested')
  else if (number >= 190000) tell('warn', 'database', what, 'upgrade todo-api: it was tested with 15 to 18')
  else tell('ok', 'database', what)

  if (encoding === 'UTF8') tell('ok', 'encoding', encoding)
  else
    tell(
      'fail',
      'encoding',
      encoding,
      `make a database with: create database … encoding 'UTF8' template template0`,
    )

  if (zone === 'UTC') tell('ok', 'time zone', zone)
  else
    tell(
      'fail',
      'time zone',
      `sessions have ${zone}: a proxy drops the setting`,
      `alter role … set timezone = 'UTC'`,
    )

  if (database.kind === 'postgres') {
    if (timeLimit === '0') {
      tell('warn', 'time limits', 'a proxy drops them', `alter role … set statement_timeout = '1800ms'`)
    }
    const connections = workers * database.poolSize
    const share = `up to ${connections} of ${connectionsMax} connections a replica`
    if (connections > connectionsMax * 0.8) tell('warn', 'connections', share, 'lower DATABASE_POOL_SIZE')
    else tell('ok', 'connections', share)
  }
  examineClock(clock - (asked + ms / 2), tell)
  await examineMigrations(driver, tell, standby || readOnly)
}

function examineClock(differenceMs: number, tell: Tell): void {
  const seconds = Math.abs(differenceMs / 1000)
  const about = `the database’s differs from this machine’s by ${seconds.toFixed(1)} s`
  if (seconds < 2) tell('ok', 'clock', about)
  else tell(seconds < 30 ? 'warn' : 'fail', 'clock', about, 'run NTP on both: tokens expire by the time')
}

async function examineMigrations(driver: Driver, tell: Tell, readOnly: boolean): Promise<void> {
  const { pending, newer } = await migrationState(driver)
  if (newer > 0) tell('warn', 'migrations', `${newer} from a newer todo-api`, 'upgrade this one')
  if (pending.length > 0)
    tell(
      'warn',
      'migrations',
      `${pending.length} pending`,
      'the next start applies them, or: todo-api migrate',
    )
  else if (newer === 0) tell('ok', 'migrations', `all ${migrations.length} applied`)
  const missing = await undistributedTables(driver, distributedTables)
  if (missing?.length)
    tell('fail', 'servers', `not distributed: ${missing.join(', ')}`, 'run: todo-api migrate --distribute')

  if (readOnly)
    tell('fail', 'writing', 'the server refuses writes (a standby?)', 'name the primary in DATABASE_URL')
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
    tell('fail', 'writing', diagnose(error).about, 'grant the role of DATABASE_URL all rights on the tables')
  }
}

/** What the migrations need. */
async function examineRightsToCreate(driver: Driver, tell: Tell): Promise<void> {
  const [row] = await driver.query(
    `select has_database_privilege(current_database(), 'create') and has_schema_privilege('public', 'create')`,
    [],
  )
  if (row![0]) tell('ok', 'writing', 'allowed to make tables')
  else
    tell('fail', 'writing', 'the role may not make tables', 'make it the owner: alter database … owner to …')
}
