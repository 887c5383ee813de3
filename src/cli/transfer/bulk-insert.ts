import { and, eq, getTableColumns, inArray, type SQL, sql } from 'drizzle-orm'
import type { Driver } from '../../db/driver.ts'
import { createDb, type Db } from '../../db/drizzle.ts'
import { databaseError } from '../../db/pg-error.ts'
import { tasks, taskTombstones, users, userVersions } from '../../db/tables.ts'
import { AppError } from '../../lib/errors.ts'
import { collectNowAndThen } from './read-cursor.ts'

type Columns = { id: string } & Record<string, unknown>

/** A user on the way in: the columns by their names in the database, and the versions to begin with. */
export interface UserRow {
  columns: Columns
  versions: { last_version: number; forgotten_version: number }
}

/** A task or a tombstone on the way in. `version` null: the next one of the user. */
export interface VersionedRow {
  table: 'task' | 'tombstone'
  columns: Columns & { user_id: string; version: number | null }
}

/** The final versions of a user whose rows have all come in; `expected` is where those rows have left it. */
export interface FinalVersions {
  user_id: string
  last_version: number
  forgotten_version: number
  expected: number
}

/** What is written in one transaction: all of it or nothing. */
export type Batch = { users: UserRow[] } | { rows: VersionedRow[] } | { versions: FinalVersions[] }

/**
 * What became of each row, in their order. `taken`: another account has the e-mail address. `orphan`: the user is not
 * here. `version`: that of the row here. `lastVersion`: the user's last version before the batch.
 */
export interface Outcome {
  kind: 'made' | 'present' | 'taken' | 'orphan'
  version?: number | undefined
  lastVersion?: number | undefined
}

/** Writes a batch. A service that has the embedded database does it on behalf of a command (control.ts). */
export type WriteBatch = (batch: Batch) => Promise<Outcome[]>

/** A row on its way in, and what to call it when it cannot come in. */
export type Incoming<Row> = Row & { label: string }

/** How many rows go in with one transaction. */
export const batchRows = 500

export type Loader = ReturnType<typeof createLoader>

/**
 * Writes users and tasks that come from elsewhere, a batch at a time, as any writer does: a service may run meanwhile.
 * What is there already stays as it is, so that running twice changes nothing; a row that cannot come in goes to
 * `skip`.
 */
export function createLoader(
  driver: Driver & { load?: WriteBatch },
  skip: (label: string, reason: string) => void,
) {
  const write = driver.load ?? (batch => writeBatch(driver, batch))
  const progress = createProgress()
  const counts = { added: { user: 0, task: 0, tombstone: 0 }, present: 0, skipped: 0 }

  function refuse(label: string, reason: string) {
    counts.skipped++
    skip(label, reason)
  }

  async function writeUsers(batch: readonly Incoming<UserRow>[]): Promise<void> {
    await inParts(batch, async part => {
      const outcomes = await write({ users: part.map(({ columns, versions }) => ({ columns, versions })) })
      for (const [i, { kind }] of outcomes.entries()) {
        if (kind === 'made') counts.added.user++
        else if (kind === 'taken') refuse(part[i]!.label, 'another account here has this e-mail address')
        else counts.present++
      }
    })
  }

  async function writeRows(batch: readonly Incoming<VersionedRow>[]): Promise<void> {
    await inParts(batch, async part => {
      const outcomes = await write({ rows: part.map(({ table, columns }) => ({ table, columns })) })
      for (const [i, outcome] of outcomes.entries()) {
        const { label, table, columns } = part[i]!
        if (outcome.kind === 'made') counts.added[table]++
        else if (outcome.kind === 'present') counts.present++
        else refuse(label, `its user ${columns.user_id} is not here`)
      }
      progress.follow(part, outcomes)
    })
  }

  /** Sets the versions of users whose rows are all here to those of the source. */
  async function finish(versions: readonly Omit<FinalVersions, 'expected'>[]): Promise<void> {
    for (let at = 0; at < versions.length; at += batchRows) {
      const part = versions.slice(at, at + batchRows).map(ofUser => {
        const { here, isWhole } = progress.of(ofUser.user_id)
        return { ...ofUser, expected: isWhole ? here : -1 }
      })
      await patiently(() => write({ versions: part }))
    }
  }

  function refuseRow({ label, columns }: Incoming<UserRow | VersionedRow>, reason: string) {
    if ('user_id' in columns) progress.spoil(String(columns.user_id))
    refuse(label, reason)
  }

  /**
   * A batch that the database refuses is halved until the row is found that it refuses; the others go in. So is one that
   * takes the database too long.
   */
  async function inParts<Row extends Incoming<UserRow | VersionedRow>>(
    batch: readonly Row[],
    write: (part: readonly Row[]) => Promise<void>,
    until = performance.now() + patienceMs,
  ): Promise<void> {
    if (batch.length === 0) return
    try {
      await write(batch)
      collectNowAndThen()
    } catch (error) {
      const reason = refusal(error)
      const mayPass = error instanceof AppError && performance.now() < until
      if (reason === undefined && !mayPass) throw error
      if (batch.length === 1 && reason !== undefined) return refuseRow(batch[0]!, reason)
      if (mayPass) await Bun.sleep(pauseMs)
      if (batch.length === 1) return inParts(batch, write, until)
      const middle = batch.length >> 1
      await inParts(batch.slice(0, middle), write, mayPass ? until : undefined)
      await inParts(batch.slice(middle), write)
    }
  }

  return { users: writeUsers, rows: writeRows, finish, refuse, counts }
}

/** How far the rows of a user are here under the versions that they bring along. */
interface Progress {
  /** The highest of these versions. */
  here: number
  /** False as soon as a row is missing or changed, or the user has made changes here. */
  isWhole: boolean
}

function createProgress() {
  const known = new Map<string, Progress>()
  const of = (userId: string) => known.get(userId) ?? { here: 0, isWhole: true }

  return {
    of,
    spoil: (userId: string) => void known.set(userId, { ...of(userId), isWhole: false }),
    follow(rows: readonly VersionedRow[], outcomes: readonly Outcome[]) {
      const results = rows.map(({ columns }, i) => ({ columns, ...outcomes[i]! }))
      for (const [userId, ofUser = []] of Object.entries(Object.groupBy(results, r => r.columns.user_id))) {
        const made = ofUser.filter(({ kind }) => kind === 'made')
        const same = ofUser.filter(({ columns, version }) => columns.version === version)
        const highest = (results: typeof ofUser, from: number) =>
          results.reduce((highest, { version }) => Math.max(highest, version!), from)
        const before = highest(
          same.filter(({ kind }) => kind === 'present'),
          of(userId).here,
        )
        const goesOn =
          same.length === ofUser.length && made.every(({ lastVersion }) => lastVersion === before)
        known.set(userId, { here: highest(same, before), isWhole: of(userId).isWhole && goesOn })
      }
    },
  }
}

/** Why the database does not want a row: a rule of the table's (class 23), or a value it cannot read (22). */
function refusal(error: unknown): string | undefined {
  const failure = databaseError(error)
  if (!failure || !/^2[23]/.test(failure.code)) return undefined
  const constraint = failure.constraint_name ?? failure.constraint
  return constraint ? `it breaks the rule ${constraint}` : `the database does not take it (${failure.code})`
}

const patienceMs = 30_000
const pauseMs = 500

/** Repeats what may run twice while the database is away. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + patienceMs
  while (true) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof AppError) || performance.now() > until) throw error
      await Bun.sleep(pauseMs)
    }
  }
}

/** Writes a batch in a transaction of its own. */
export function writeBatch(driver: Driver, batch: Batch): Promise<Outcome[]> {
  return createDb(driver).transaction(tx => {
    if ('users' in batch) return insertUsers(tx, batch.users)
    if ('rows' in batch) return insertRows(tx, batch.rows)
    return setVersions(tx, batch.versions)
  })
}

/** A user comes with a row of versions, as at registration. */
async function insertUsers(tx: Db, rows: readonly UserRow[]): Promise<Outcome[]> {
  const made = await insert(
    tx,
    users,
    rows.map(({ columns }) => columns),
  )
  // An account of the same id may have been deleted here a moment ago, and what it left is no part of this one.
  await tx.delete(userVersions).where(inArray(userVersions.userId, [...made]))
  const withoutVersions = rows.filter(({ columns }) => made.has(columns.id))
  await insert(
    tx,
    userVersions,
    withoutVersions.map(({ columns, versions }) => ({ user_id: columns.id, ...versions })),
  )
  const ids = rows.map(({ columns }) => columns.id)
  const found = await tx.select({ id: users.id }).from(users).where(inArray(users.id, ids))
  const here = new Set(found.map(({ id }) => id))
  return ids.map(id => {
    if (made.delete(id)) return { kind: 'made' }
    return { kind: here.has(id) ? 'present' : 'taken' }
  })
}

/**
 * A row keeps its version if that is ahead of the user's last one, which moves there; otherwise the version may have
 * been used, and the row gets the next one. A task that was deleted here for good does not come back.
 */
async function insertRows(tx: Db, rows: readonly VersionedRow[]): Promise<Outcome[]> {
  const userIds = [...new Set(rows.map(({ columns }) => columns.user_id))]
  const locked = await tx
    .select({ id: userVersions.userId, lastVersion: userVersions.lastVersion })
    .from(userVersions)
    .innerJoin(users, eq(users.id, userVersions.userId))
    .where(inArray(userVersions.userId, userIds))
    .orderBy(userVersions.userId)
    .for('no key update', { of: userVersions })
  const before = new Map(locked.map(({ id, lastVersion }) => [id, lastVersion]))
  const here = await findVersions(tx, rows, userIds)
  const made = new Set<VersionedRow>()
  for (const row of rows) {
    if (!before.has(row.columns.user_id) || here.has(keyOf(row))) continue
    made.add(row)
    here.set(keyOf(row), 0)
  }
  const last = new Map(before)
  for (const [row, version] of takeVersions([...made], last)) here.set(keyOf(row), version)
  for (const [kind, table] of Object.entries(tables)) {
    const ofTable = [...made].filter(row => row.table === kind)
    const ready = ofTable.map(row => ({ ...row.columns, version: here.get(keyOf(row)) }))
    await insert(tx, table, ready)
  }
  const moved = [...last].map(([user_id, last_version]) => ({ user_id, last_version }))
  await tx.execute(sql`
    update ${userVersions} c set last_version = n.last_version
    from jsonb_to_recordset(${sql.param(moved)}::jsonb) as n(user_id uuid, last_version bigint)
    where c.user_id = n.user_id and c.last_version < n.last_version`)
  return rows.map(row => {
    const lastVersion = before.get(row.columns.user_id)
    const kind = lastVersion === undefined ? 'orphan' : made.has(row) ? 'made' : 'present'
    return { kind, lastVersion, version: here.get(keyOf(row)) }
  })
}

const tables = { task: tasks, tombstone: taskTombstones }

const keyOf = ({ columns: { id, user_id } }: VersionedRow) => `${user_id} ${id}`

/** The versions of new rows; moves the last version of each user. */
function takeVersions(rows: VersionedRow[], last: Map<string, number>): Map<VersionedRow, number> {
  const versions = new Map<VersionedRow, number>()
  const take = (row: VersionedRow, version: number) => {
    versions.set(row, version)
    last.set(row.columns.user_id, version)
  }
  const ahead = ({ columns: { user_id, version } }: VersionedRow) => (version ?? 0) > last.get(user_id)!
  const sorted = rows.sort((a, b) => (a.columns.version ?? 0) - (b.columns.version ?? 0))
  for (const row of sorted) if (ahead(row)) take(row, row.columns.version!)
  for (const row of sorted) if (!versions.has(row)) take(row, last.get(row.columns.user_id)! + 1)
  return versions
}

/** The versions of those tasks and tombstones that are here already. */
async function findVersions(tx: Db, rows: readonly VersionedRow[], userIds: string[]) {
  const ids = rows.map(({ columns }) => columns.id)
  const found = new Map<string, number>()
  for (const table of Object.values(tables)) {
    const present = await tx
      .select({ id: table.id, userId: table.userId, version: table.version })
      .from(table)
      .where(and(inArray(table.id, ids), inArray(table.userId, userIds)))
    for (const { id, userId, version } of present) found.set(`${userId} ${id}`, version)
  }
  return found
}

/** Clients may go on with the cursors that they have from elsewhere, unless the user has made changes here meanwhile. */
async function setVersions(tx: Db, versions: readonly FinalVersions[]): Promise<Outcome[]> {
  await tx.execute(sql`
    update ${userVersions} c set
      last_version = greatest(c.last_version, n.last_version),
      forgotten_version = case when c.last_version = n.expected and c.forgotten_version = n.last_version + 1
        then n.forgotten_version else c.forgotten_version end
    from jsonb_to_recordset(${sql.param(versions)}::jsonb)
      as n(user_id uuid, last_version bigint, forgotten_version bigint, expected bigint)
    where c.user_id = n.user_id`)
  return []
}

/** The versions of a user whose rows are still on their way: cursors from elsewhere are too old until `finish`. */
export const arrivingVersions = (last: number) => ({ last_version: 0, forgotten_version: last + 1 })

type Table = typeof users | typeof userVersions | typeof tasks | typeof taskTombstones

/** Inserts rows that are not there yet, as one value however many they are. Returns the ids of those that were made. */
async function insert(tx: Db, table: Table, rows: readonly Record<string, unknown>[]): Promise<Set<string>> {
  if (rows.length === 0) return new Set()
  const columns = Object.values(getTableColumns(table)).filter(({ generated }) => !generated)
  const value = ({ name, notNull, default: fallback }: (typeof columns)[number]): SQL => {
    const given = sql.raw(`i.${name}`)
    return notNull && fallback !== undefined ? sql`coalesce(${given}, ${fallback})` : given
  }
  const made = await tx.execute<{ id: string }>(sql`
    insert into ${table} (${sql.raw(columns.map(({ name }) => name).join(', '))})
    select ${sql.join(columns.map(value), sql`, `)}
    from jsonb_populate_recordset(null::${table}, ${sql.param(rows)}::jsonb) with ordinality i
    order by i.ordinality
    on conflict do nothing returning ${sql.raw('id' in table ? 'id' : 'user_id')} as id`)
  return new Set(made.map(({ id }) => id))
}
