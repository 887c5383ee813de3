import { getTableName, sql } from 'drizzle-orm'
import type { Config } from '../../config/config.ts'
import { undistributedTables } from '../../db/distribute.ts'
import type { Driver } from '../../db/driver.ts'
import { createDb } from '../../db/drizzle.ts'
import { makeUtf8Database, migrationState, migrations } from '../../db/migrator.ts'
import { statementLimits } from '../../db/postgres/postgres.ts'
import { distributedTables, registry } from '../../modules/table-registry.ts'
import { fail, ok, type Tell, type Verdict, warn } from './finding.ts'

export async function examineDatabase(driver: Driver, config: Config, tell: Tell): Promise<void> {
  // Connecting takes its time, and what is measured here is the answer.
  await driver.query('select 1', [])
  const begun = performance.now()
  const asked = Date.now()
  const server = await readServer(driver)
  const ms = Math.round(performance.now() - begun)
  const { version, number, encoding, zone, clock } = server
  const what = `${driver.kind === 'embedded' ? 'embedded ' : ''}PostgreSQL ${version}, answered in ${ms} ms`
  tell('database', what, judgeVersion(number))
  tell('encoding', encoding, encoding === 'UTF8' ? ok : fail(makeUtf8Database))
  if (zone === 'UTC') tell('time zone', zone, ok)
  else {
    const about = `sessions have ${zone}: a proxy drops the setting`
    tell('time zone', about, fail(`alter role … set timezone = 'UTC'`))
  }
  examineSessions(server, config, tell)
  examineClock(clock - (asked + ms / 2), tell)
  const isMigrated = await examineMigrations(driver, tell)
  await examineDistribution(driver, tell)
  await examineWriting(driver, server, isMigrated, tell)
}

type Server = Awaited<ReturnType<typeof readServer>>

/** The values of a session for which the limits of the service were not set. */
const postgresDefaults = {
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  jit: 'on',
  max_parallel_workers_per_gather: '2',
  random_page_cost: '4',
}

/** What a server says of itself and of our session. */
async function readServer(driver: Driver) {
  const [server] = await createDb(driver)
    .select({
      version: sql<string>`current_setting('server_version')`,
      number: sql<number>`current_setting('server_version_num')::int`,
      encoding: sql<string>`current_setting('server_encoding')`,
      zone: sql<string>`current_setting('TimeZone')`,
      isReadOnly: sql<boolean>`current_setting('transaction_read_only') = 'on'`,
      isStandby: sql<boolean>`pg_is_in_recovery()`,
      isolation: sql<string>`current_setting('default_transaction_isolation')`,
      /** Its clock: milliseconds since 1970. */
      clock: sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`,
      /** Of the server, the database and the role together; the latter two have -1 for no limit. */
      connectionsMax: sql<number>`(
        select min(most) from (
          select current_setting('max_connections')::int as most
          union all select datconnlimit from pg_database where datname = current_database()
          union all select rolconnlimit from pg_roles where rolname = current_user
        ) limits where most >= 0)`,
      /** Limits of statements that the session does not have. */
      missingLimits: sql<(keyof typeof postgresDefaults)[]>`(
        select coalesce(json_agg(key), '[]') from json_each_text(${JSON.stringify(postgresDefaults)}::text::json)
        where current_setting(key) = value)`,
    })
    .from(sql`(select) one`)
  return server!
}

function judgeVersion(number: number): Verdict {
  if (number < 150000) return fail('upgrade it: it is older than 15, the oldest that is tested')
  return number < 190000 ? ok : warn('upgrade todo-api: it was tested with 15 to 18')
}

function examineSessions(server: Server, { database, workers }: Config, tell: Tell) {
  if (database.kind === 'embedded') return
  const { connectionsMax, missingLimits, isolation } = server
  if (isolation !== 'read committed') {
    const cure = `alter role … set default_transaction_isolation = 'read committed'`
    tell('isolation', `sessions have ${isolation}: writes that meet are refused`, fail(cure))
  }
  if (missingLimits.length > 0) {
    const cure = missingLimits.map(name => `alter role … set ${name} = '${statementLimits[name]}'`).join('; ')
    tell('limits', `a proxy drops ${missingLimits.join(', ')}`, warn(cure))
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

async function examineRights(driver: Driver, tell: Tell): Promise<void> {
  const names = registry.map(({ table }) => getTableName(table))
  const rows = await driver.query(
    `select format('%s on %I', privilege, name)
     from unnest($1::text[]) name, unnest('{select,insert,update,delete}'::text[]) privilege
     where not has_table_privilege(name, privilege)`,
    [names],
  )
  const [hidden] = await driver.query(
    'select name from unnest($1::text[]) name where row_security_active(name)',
    [names],
  )
  if (hidden)
    return tell(
      'writing',
      `row-level security hides rows of ${hidden}`,
      fail('make the role of DATABASE_URL the owner, or: alter table … disable row level security'),
    )
  if (rows.length === 0) return tell('writing', 'allowed on every table', ok)
  const [first] = rows
  const more = rows.length > 1 ? ` and ${rows.length - 1} more` : ''
  tell(
    'writing',
    `not allowed: ${first}${more}`,
    fail('grant the role of DATABASE_URL all rights on the tables'),
  )
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
