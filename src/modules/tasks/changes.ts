import { type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import { type Db, prepareSql } from '../../db/drizzle.ts'
import { listTombstones, taskTombstones, userVersions } from '../../db/tables.ts'
import { createVersionReader, throwVersionless } from '../../db/versions.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { lists } from '../lists/table.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { ChangesQuery } from './model.ts'
import { value } from './rows.ts'
import { tasks } from './table.ts'

const user = value('user', 'uuid')
const since = value('since', 'bigint')
// Hidden from the planner, so that it keeps one plan; one more than asked for says whether there are more.
const rows = sql`(select ${value('limit', 'int')} + 1)`

/** The changes of one table, in the order of their versions, which an index has. */
const changesOf = (kind: Kind, table: PgTable, json: SQL) => sql`
    (select ${sql.raw(`'${kind}'`)} as kind, id, version, ${json} as json
     from ${table} where user_id = ${user} and version > ${since} order by version limit ${rows})`

/**
 * What has a version above `since`, in the order of the versions: ranges of four indexes, merged. `last_version` comes
 * from the same snapshot: every change up to it is in there, because versions are committed in order. Raw SQL, because
 * the builder has no words for limits in a union.
 */
const changesQuery = sql`
  select last_version, forgotten_version, change.*
  from ${userVersions} known left join lateral (
    ${changesOf('task', tasks, sql`case when deleted_at is null then json end`)}
    union all ${changesOf('task', taskTombstones, sql`null`)}
    union all ${changesOf('list', lists, sql`json`)}
    union all ${changesOf('list', listTombstones, sql`null`)}
    order by version limit ${rows}
  ) change on true
  where known.user_id = ${user}
  order by version`

type Kind = 'task' | 'list'

/** A change, or nulls when there is none; without JSON it is a deletion. */
type Row = { last_version: number; forgotten_version: number } & (
  | { kind: Kind; id: string; version: number; json: string | null }
  | { kind: null; id: null; version: null; json: null }
)

/** A place in the sequence of changes. */
interface Place {
  /** The version of the last change that the client knows. */
  since: number
  /**
   * Up to which version deletions were forgotten when the client began: it never had those tasks. Without this, a client
   * that begins after a purge would get `cursor_expired` for every cursor.
   */
  base: number
}

/** Changes of one user, in order. */
interface ChangesPage {
  /** As the API sends it. */
  json: string
  state: string
  /** The number of entries. */
  count: number
  /** The place after the last entry, for the client, and its version. */
  cursor: string
  version: number
  hasMore: boolean
}

/** Where a client begins. */
interface ChangesStart {
  cursor: string | undefined
  /** Where the request has the cursor. */
  sentAs: SentAs
}

type SentAs = Parameters<typeof wrongCursor>

/** What decides about an answer, beside the question: two answers with the same state are the same. */
const stateOf = (lastVersion: number, forgottenVersion: number) => `${lastVersion}.${forgottenVersion}`

export function createChanges(db: Db, cursors: Cursors) {
  const query = prepareSql<Row>(db, 'changes', changesQuery)
  const readVersions = createVersionReader(db)

  /** Throws `cursor_expired`. */
  function checkPlace(known: Place | undefined, lastVersion: number, forgottenVersion: number) {
    const { since = 0, base = forgottenVersion } = known ?? {}
    if (since > lastVersion || forgottenVersion > Math.max(since, base)) throw new AppError('cursor_expired')
    return base
  }

  /** The last versions of a user who is at such a place. Throws as `changes` does. */
  async function readPlace(userId: UserId, known: Place | undefined) {
    const versions = await readVersions(userId)
    if (!versions) return throwVersionless(db, userId)
    return { ...versions, base: checkPlace(known, versions.lastVersion, versions.forgottenVersion) }
  }

  /** The `state` that such an answer has now, without reading the changes. Throws as `changes` does. */
  async function changesState(userId: UserId, { since: cursor }: ChangesQuery): Promise<string> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor)
    const { lastVersion, forgottenVersion } = await readPlace(userId, known)
    return stateOf(lastVersion, forgottenVersion)
  }

  /** The place that a cursor names; without one, after the last change. Throws as `changes` does. */
  async function changesStart(
    userId: UserId,
    { cursor, sentAs }: ChangesStart,
  ): Promise<Pick<ChangesPage, 'cursor' | 'version'>> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor, sentAs)
    const { lastVersion, base } = await readPlace(userId, known)
    const version = known?.since ?? lastVersion
    return { cursor: sign(userId, version, base), version }
  }

  /**
   * The changes since a cursor. Throws `validation_failed` for a cursor that is not this user's, and
   * `cursor_expired` when deletions after it are forgotten, or when the database is older than it (a restored backup).
   */
  async function changes(userId: UserId, { since: cursor, limit = 50 }: ChangesQuery): Promise<ChangesPage> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor)
    const from = known?.since ?? 0
    const found = await query.execute({ user: userId, since: from, limit })
    if (!found[0]) return throwVersionless(db, userId)
    const { last_version, forgotten_version } = found[0]
    const base = checkPlace(known, last_version, forgotten_version)
    const hasMore = found.length > limit
    const page = found.slice(0, limit)
    const changed = (of: Kind) => page.flatMap(({ kind, json }) => (kind === of && json) || [])
    const deleted = (of: Kind) =>
      page.flatMap(({ kind, id, json }) => (kind === of && !json ? `"${id}"` : []))
    const version = hasMore ? page.at(-1)!.version! : last_version
    const next = sign(userId, version, base)
    const json =
      `{"tasks":[${changed('task')}],"deleted":[${deleted('task')}],` +
      `"lists":[${changed('list')}],"deleted_lists":[${deleted('list')}],"cursor":"${next}","has_more":${hasMore}}`
    const count = page[0]!.id === null ? 0 : page.length
    return { json, state: stateOf(last_version, forgotten_version), count, cursor: next, version, hasMore }
  }

  const sign = (userId: UserId, version: number, base: number) =>
    cursors.sign('changes', userId, `${version}.${base}`)

  function readCursor(userId: UserId, cursor: string, sentAs: SentAs = ['since']): Place {
    const content = cursors.verify('changes', userId, cursor)
    if (content === undefined) throw wrongCursor(...sentAs)
    const [since, base] = content.split('.').map(Number)
    return { since: since!, base: base! }
  }

  return { changes, changesState, changesStart }
}
