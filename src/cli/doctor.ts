import { accessSync, constants, existsSync, mkdtempSync, rmdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { getTableName, sql } from 'drizzle-orm'
import { type Config, ConfigError, parseConfig } from '../config/config.ts'
import { clusterName, lockName, secretName } from '../config/data-dir.ts'
import { undistributedTables } from '../db/distribute.ts'
import type { Driver } from '../db/driver.ts'
import { createDb } from '../db/drizzle.ts'
import { freeBytes, freeBytesMin } from '../db/embedded/copy.ts'
import { makeUtf8Database, migrationState, migrations } from '../db/migrator.ts'
import { distributedTables, registry } from '../modules/table-registry.ts'
import { newestBackup } from '../server/backups.ts'
import { connectToService } from './control-socket.ts'
import { diagnose } from './diagnose.ts'
import { isAbsent, openDatabase } from './open-database.ts'
import { readEnv } from './read-config.ts'
import { print } from './terminal.ts'

/** What was found about one thing, and what to do. */
interface Finding {
  verdict: 'ok' | 'warn' | 'fail'
  check: string
  about: string
  cure?: string | undefined
}

type Verdict = Pick<Finding, 'verdict' | 'cure'>
const ok: Verdict = { verdict: 'ok' }
const warn = (cure: string): Verdict => ({ verdict: 'warn', cure })
const fail = (cure?: string): Verdict => ({ verdict: 'fail', cure })

type Tell = (check: string, about: string, verdict: Verdict) => void

const mebibyte = 1024 * 1024

/** Looks at everything that the service needs, one line each, and changes nothing. Returns whether nothing failed. */
export async function doctorCommand(_: string, { json = false }: { json?: boolean }): Promise<boolean> {
  const findings: Finding[] = []
  await examine((check, about, { verdict, cure }) => void findings.push({ verdict, check, about, cure }))
  const format = json ? JSON.stringify : process.stdout.isTTY ? formatForTerminal : formatLine
  await print(findings.map(finding => `${format(finding)}\n`).join(''))
  return !findings.some(({ verdict }) => verdict === 'fail')
}

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
  try {
    await using driver = await openQuietly(config, tell)
    if (driver) await examineDatabase(driver, config, tell)
  } catch (error) {
    const { about, cure } = diagnose(error)
    tell('database', about, fail(cure))
  }
}

function examineSettings(tell: Tell): Config | undefined {
  try {
    const config = parseConfig(readEnv().env)
    tell('settings', 'valid; `todo-api config` lists them', ok)
    examineWorkers(config, tell)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const mistake of error.mistakes) tell('settings', mistake, fail())
    return undefined
  }
}

function examineWorkers({ workers }: Config, tell: Tell): void {
  if (workers === 1) return
  const cores = availableParallelism()
  const about = `${workers} on ${cores} ${cores === 1 ? 'core' : 'cores'}`
  tell('workers', about, workers <= cores ? ok : warn('lower WORKERS: more than cores gain nothing'))
}

/** Needed for the embedded database, and for a secret that the service makes for itself. Returns whether it is usable. */
function examineDataDir({ dataDir, database, secretKey }: Config, tell: Tell): boolean {
  if (database.kind === 'postgres' && secretKey) return true
  const isThere = existsSync(dataDir)
  // The folders above it are made with it.
  const folder = isThere ? dataDir : nearestFolder(dataDir)
  const fault = faultOf(folder)
  if (fault) {
    tell('data folder', `${fault.path} cannot be written to (${fault.code})`, fail(cureOf(fault, folder)))
    return false
  }
  if (!isThere) {
    tell('data folder', `${dataDir} is made at the first start`, ok)
    return true
  }
  const { mode, uid } = statSync(dataDir)
  const user = process.geteuid?.()
  if (user === 0 && uid !== 0) {
    const cure = 'run commands and the service as its owner: what root makes there the owner cannot read'
    tell('data folder', `${dataDir} belongs to user ${uid}, and this is root`, warn(cure))
  }
  if (mode & 0o077) tell('data folder', `other users may look into ${dataDir}`, warn(`chmod 700 ${dataDir}`))
  const free = freeBytes(dataDir)
  const about = `${dataDir}, ${Math.floor(free / mebibyte).toLocaleString('en')} MiB free`
  tell('data folder', about, judgeFreeSpace(free))
  return free >= freeBytesMin
}

function judgeFreeSpace(free: number): Verdict {
  if (free < freeBytesMin)
    return fail(`make room: below ${freeBytesMin / mebibyte} MiB the database refuses writes`)
  return free < 512 * mebibyte ? warn('make room before it runs out') : ok
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
  const names = [clusterName, lockName, secretName]
  const files = names.map(name => join(folder, name)).filter(path => existsSync(path))
  let path = folder
  try {
    for (path of [folder, ...files]) accessSync(path, constants.R_OK | constants.W_OK)
    // Rights say little on a read-only or a network file system.
    path = folder
    rmdirSync(mkdtempSync(join(folder, '.doctor-')))
    return undefined
  } catch (error) {
    return { path, code: (error as NodeJS.ErrnoException).code ?? 'unknown' }
  }
}

function cureOf({ path, code }: Fault, folder: string): string {
  if (code === 'EROFS')
    return 'the file system is read-only: mount it for writing, or set DATA_DIR to a volume'
  if (code === 'ENOSPC') return 'the disk is full: make room'
  if (code === 'ENOTDIR') return 'a file is in its place: move it, or set DATA_DIR to another folder'
  const [owner, user] = [statSync(path).uid, process.geteuid?.()]
  // All of the folder: the user who made one file of it has made others.
  return owner === user
    ? `chmod u+rwX ${path}`
    : `it belongs to user ${owner}, and this is user ${user}: chown -R ${user} ${folder}`
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
  tell('backups', about, isLate ? warn('start the service, and look for `backup failed` in its log') : ok)
}

/** The database, unless looking at it would make it. */
async function openQuietly(config: Config, tell: Tell) {
  const { database } = config
  if (database.kind === 'embedded') {
    if (isAbsent(config)) {
      tell('database', 'embedded, made at the first start', ok)
      return undefined
    }
    const runs = (await connectToService(database.dataDir)) !== undefined
    tell('service', `${runs ? 'it' : 'none'} runs on this data folder`, ok)
  }
  return openDatabase(config)
}

/** What a server says of itself and of our session. */
type Server = {
  version: string
  number: number
  encoding: string
  zone: string
  isReadOnly: boolean
  isStandby: boolean
  /** Its clock: milliseconds since 1970. */
  clock: number
  connectionsMax: number
  timeLimit: string
}

async function examineDatabase(driver: Driver, config: Config, tell: Tell): Promise<void> {
  // Connecting takes its time, and what is measured here is the answer.
  await driver.query('select 1', [])
  const begun = performance.now()
  const asked = Date.now()
  const [row] = await createDb(driver).execute<Server>(sql`
    select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
           current_setting('server_encoding') as encoding, current_setting('TimeZone') as zone,
           current_setting('transaction_read_only') = 'on' as "isReadOnly",
           pg_is_in_recovery() as "isStandby",
           (extract(epoch from clock_timestamp()) * 1000)::bigint as clock,
           current_setting('max_connections')::int as "connectionsMax",
           current_setting('statement_timeout') as "timeLimit"`)
  const ms = Math.round(performance.now() - begun)
  const { version, number, encoding, zone, clock } = row!
  const what = `${driver.kind === 'embedded' ? 'embedded ' : ''}PostgreSQL ${version}, answered in ${ms} ms`
  tell('database', what, judgeVersion(number))
  tell('encoding', encoding, encoding === 'UTF8' ? ok : fail(makeUtf8Database))
  if (zone === 'UTC') tell('time zone', zone, ok)
  else {
    const about = `sessions have ${zone}: a proxy drops the setting`
    tell('time zone', about, fail(`alter role … set timezone = 'UTC'`))
  }
  examineSessions(row!, config, tell)
  examineClock(clock - (asked + ms / 2), tell)
  const isMigrated = await examineMigrations(driver, tell)
  await examineDistribution(driver, tell)
  await examineWriting(driver, row!, isMigrated, tell)
}

function judgeVersion(number: number): Verdict {
  if (number < 150000) return fail('upgrade it: it is older than 15, the oldest that is tested')
  return number < 190000 ? ok : warn('upgrade todo-api: it was tested with 15 to 18')
}

function examineSessions({ connectionsMax, timeLimit }: Server, { database, workers }: Config, tell: Tell) {
  if (database.kind === 'embedded') return
  if (timeLimit === '0') {
    tell('time limits', 'a proxy drops them', warn(`alter role … set statement_timeout = '1800ms'`))
  }
  const connections = workers * database.poolSize
  const share = `up to ${connections} of ${connectionsMax} connections a replica`
  tell('connections', share, connections <= connectionsMax * 0.8 ? ok : warn('lower DATABASE_POOL_SIZE'))
}

function examineClock(differenceMs: number, tell: Tell): void {
  const seconds = Math.abs(differenceMs / 1000)
  const about = `the database’s differs from this machine’s by ${seconds.toFixed(1)} s`
  const judge = seconds < 30 ? warn : fail
  tell('clock', about, seconds < 2 ? ok : judge('run NTP on both: tokens expire by the time'))
}

/** Returns whether none is pending. */
async function examineMigrations(driver: Driver, tell: Tell): Promise<boolean> {
  const { pending, newer } = await migrationState(driver)
  if (newer > 0) tell('migrations', `${newer} from a newer todo-api`, warn('upgrade this one'))
  if (pending.length > 0) {
    const cure = 'the next start applies them, or: todo-api migrate'
    tell('migrations', `${pending.length} pending`, warn(cure))
  } else if (newer === 0) tell('migrations', `all ${migrations.length} applied`, ok)
  return pending.length === 0
}

async function examineDistribution(driver: Driver, tell: Tell): Promise<void> {
  const missing = await undistributedTables(driver, distributedTables)
  if (missing?.length)
    tell('servers', `not distributed: ${missing.join(', ')}`, fail('run: todo-api migrate --distribute'))
}

const makeWritable =
  'alter role … (or database, or system) reset default_transaction_read_only; hosts set it when the disk is full'

async function examineWriting(
  driver: Driver,
  { isReadOnly, isStandby }: Server,
  isMigrated: boolean,
  tell: Tell,
): Promise<void> {
  if (isStandby)
    tell('writing', 'the server is a standby, and refuses writes', fail('name the primary in DATABASE_URL'))
  else if (isReadOnly) tell('writing', 'default_transaction_read_only is on', fail(makeWritable))
  else if (isMigrated) await examineRights(driver, tell)
  else await examineRightsToCreate(driver, tell)
}

/** A statement that would change rows if there were any: the rights are checked all the same. */
async function examineRights(driver: Driver, tell: Tell): Promise<void> {
  const tables = registry.map(({ table }) => getTableName(table))
  try {
    for (const table of tables) await driver.query(`delete from ${table} where false`, [])
    await driver.query('insert into rate_limits (key) select null where false', [])
    tell('writing', 'allowed on every table', ok)
  } catch (error) {
    tell('writing', diagnose(error).about, fail('grant the role of DATABASE_URL all rights on the tables'))
  }
}

/** What the migrations need. */
async function examineRightsToCreate(driver: Driver, tell: Tell): Promise<void> {
  const [row] = await driver.query(
    `select has_database_privilege(current_database(), 'create') and coalesce(has_schema_privilege(current_schema(), 'create'), false)`,
    [],
  )
  if (row![0]) tell('writing', 'allowed to make tables', ok)
  else tell('writing', 'the role may not make tables', fail('make it the owner: alter database … owner to …'))
}
