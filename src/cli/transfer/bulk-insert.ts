import { and, eq, getTableColumns, inArray, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { users, userVersions } from '../../db/tables.ts'
import { lists } from '../../modules/lists/table.ts'
import { exportedTables, type RowType } from '../../modules/table-registry.ts'
import { tasks } from '../../modules/tasks/table.ts'

/** A row to be added. All but users get the next versions of their user. */
export interface NewRow {
  table: RowType
  /** By the names of the columns in the database; all but a user have a `user_id`. */
  columns: { id: string } & Record<string, unknown>
  /** Of a user: the last version to begin with. Cursors and entity tags up to there are not of this database. */
  version?: number
  /** Its name in messages. */
  label: string
}

/** `taken`: another account has the e-mail address. `orphan`: its user is missing. */
export type Outcome = 'added' | 'present' | 'taken' | 'orphan'

/** Adds rows in one transaction. */
export function addRows(db: Db, rows: readonly NewRow[]): Promise<Outcome[]> {
  const isUser = ({ table }: NewRow) => table === 'user'
  const isOwned = (row: NewRow) => !isUser(row)
  return db.transaction(async tx => {
    const ofUsers = await addUsers(tx, rows.filter(isUser))
    const ofOwned = await addOwned(tx, rows.filter(isOwned))
    return rows.map(row => (isUser(row) ? ofUsers : ofOwned).shift()!)
  })
}

/** A user gets a row of `user_versions`, as at registration, also one that was here without. */
async function addUsers(tx: Db, rows: readonly NewRow[]): Promise<Outcome[]> {
  if (rows.length === 0) return []
  const added = await insert(
    tx,
    users,
    rows.map(row => row.columns),
  )
  // An account of the same id may have been deleted a moment ago; what it left is no part of this one.
  await tx.delete(userVersions).where(inArray(userVersions.userId, [...added]))
  const ids = rows.map(row => row.columns.id)
  const found = await tx.select({ id: users.id }).from(users).where(inArray(users.id, ids))
  const here = new Set(found.map(({ id }) => id))
  const versions = rows
    .filter(row => here.has(row.columns.id))
    .map(({ columns: { id }, version = 0 }) => ({
      user_id: id,
      last_version: version,
      forgotten_version: version,
    }))
  await insert(tx, userVersions, versions)
  return ids.map(id => {
    // A file may contain a user twice.
    if (added.delete(id)) return 'added'
    return here.has(id) ? 'present' : 'taken'
  })
}

/** What was deleted here for good is not added again. */
async function addOwned(tx: Db, rows: readonly NewRow[]): Promise<Outcome[]> {
  if (rows.length === 0) return []
  const ownerOf = ({ columns }: NewRow) => String(columns.user_id)
  const ids = rows.map(({ columns }) => columns.id)
  const owners = [...new Set(rows.map(ownerOf))]
  const lastVersions = await lockLastVersions(tx, owners)
  const present = await findPresent(tx, ids, owners)
  const added: NewRow[] = []
  const outcomes = rows.map((row): Outcome => {
    const lastVersion = lastVersions.get(ownerOf(row))
    if (lastVersion === undefined) return 'orphan'
    const key = keyOf(row.table, ownerOf(row), row.columns.id)
    if (present.has(key)) return 'present'
    const version = lastVersion + 1
    lastVersions.set(ownerOf(row), version)
    present.add(key)
    added.push({ ...row, columns: { ...row.columns, version } })
    return 'added'
  })
  const byKind = Object.groupBy(added, ({ table, columns }) => (columns.parent_id ? 'child' : table))
  // What others refer to comes before them.
  for (const kind of ['list', 'task', 'child', 'tombstone', 'list_tombstone'] as const) {
    const columns = byKind[kind]?.map(({ columns }) => columns) ?? []
    await insert(tx, exportedTables[kind === 'child' ? 'task' : kind], columns)
  }
  const moved = [...lastVersions].map(([user_id, last_version]) => ({ user_id, last_version }))
  await tx.execute(sql`
    update ${userVersions} v set last_version = n.last_version
    from jsonb_populate_recordset(null::${userVersions}, ${sql.param(moved)}::jsonb) n where v.user_id = n.user_id`)
  return outcomes
}

/** Locks the last versions of users, as every write of a task does; deleted accounts are left out. */
async function lockLastVersions(tx: Db, userIds: string[]): Promise<Map<string, number>> {
  const locked = await tx
    .select({ id: userVersions.userId, version: userVersions.lastVersion })
    .from(userVersions)
    .innerJoin(users, eq(users.id, userVersions.userId))
    .where(inArray(userVersions.userId, userIds))
    .orderBy(userVersions.userId)
    .for('no key update', { of: userVersions })
  return new Map(locked.map(({ id, version }) => [id, version]))
}

/** A row and its tombstone have the same key. */
const keyOf = (type: string, userId: string, id: string) =>
  `${type.startsWith('list') ? 'list' : 'task'} ${userId} ${id}`

/** The keys of the rows that are in the database, or were deleted there. */
async function findPresent(tx: Db, ids: string[], userIds: string[]): Promise<Set<string>> {
  const present = new Set<string>()
  const { user: _, ...owned } = exportedTables
  for (const [type, table] of Object.entries(owned)) {
    const found = await tx
      .select({ id: table.id, userId: table.userId })
      .from(table)
      .where(and(inArray(table.id, ids), inArray(table.userId, userIds)))
    for (const row of found) present.add(keyOf(type, row.userId, row.id))
  }
  return present
}

/** What a row refers to, if it is here and fits: otherwise the row comes without it. */
const references: Record<string, SQL> = {
  list_id: sql`(select l.id from ${lists} l where l.id = i.list_id and l.user_id = i.user_id)`,
  parent_id: sql`(
    select p.id from ${tasks} p where p.id = i.parent_id and p.user_id = i.user_id and p.parent_id is null
      and (p.deleted_at is null or i.deleted_at is not null))`,
}

/** Inserts rows that are not there yet, as one value however many they are. Returns the ids of those that were added. */
async function insert(
  tx: Db,
  table: (typeof exportedTables)[RowType] | typeof userVersions,
  rows: readonly object[],
): Promise<Set<string>> {
  if (rows.length === 0) return new Set()
  const columns = Object.values(getTableColumns(table))
  const value = (column: (typeof columns)[number]): SQL => {
    const given = references[column.name] ?? sql.raw(`i.${column.name}`)
    return column.notNull && column.hasDefault
      ? sql`coalesce(${given}, ${sql.param(column.default, column)})`
      : given
  }
  const added = await tx.execute<{ id: string }>(sql`
    insert into ${table} (${sql.raw(columns.map(({ name }) => name).join(', '))})
    select ${sql.join(columns.map(value), sql`, `)}
    from jsonb_populate_recordset(null::${table}, ${sql.param(rows)}::jsonb) i
    on conflict do nothing returning ${sql.raw('id' in table ? 'id' : 'user_id')} as id`)
  return new Set(added.map(({ id }) => id))
}
