import { type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import { type Db, parameter, prepareSql } from '../../db/drizzle.ts'
import { pageSizeDefault } from '../../db/page.ts'
import { listTombstones, taskTombstones, userVersions } from '../../db/tables.ts'
import { createVersionReader, throwVersionless } from '../../db/versions.ts'
import type { Cursors } from '../../lib/cursor.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { lists } from '../lists/table.ts'
import type { ChangesQuery } from './model.ts'
import type { Kind } from './owned.ts'
import { tasks } from './table.ts'

const user = parameter('user', 'uuid')
const since = parameter('since', 'bigint')
// Hidden from the planner, so that it keeps one plan; one more than asked for says whether there are more.
const rows = sql`(select ${parameter('limit', 'int')} + 1)`

/** The changes of one table, in the order of their versions, which an index has. */
const changesOf = (kind: Kind, table: PgTable, json: SQL) => sql`
    (select ${sql.raw(`'${kind}'`)} as kind, id, version, ${json} as json
     from ${table} where user_id = ${user} and version > ${since} order by version limit ${rows})`

/**
 * What has a version above `since`, in the order of the versions: ranges of four indexes, merged. `lastVersion` comes
 * from the same snapshot: every change up to it is in there, because versions are committed in order. Raw SQL, because
 * the builder has no words for limits in a union.
 */
const changesStatement = sql`
  select last_version as "lastVersion", forgotten_version as "forgottenVersion", change.*
  from ${userVersions} known left join lateral (
    ${changesOf('task', tasks, sql`case when deleted_at is null then json end`)}
    union all ${changesOf('task', taskTombstones, sql`null`)}
    union all ${changesOf('list', lists, sql`json`)}
    union all ${changesOf('list', listTombstones, sql`null`)}
    order by version limit ${rows}
  ) change on true
  where known.user_id = ${user}
  order by version`

interface LastVersions {
  lastVersion: number
  forgottenVersion: number
}

/** A change, or nulls when there is none; without JSON it is a deletion. */
type Row = LastVersions &
  (
    | { kind: Kind; id: string; version: number; json: string | null }
    | { kind: null; id: null; version: null; json: null }
  )

/** What a cursor says: a place in the sequence of changes. */
interface CursorContent {
  /** The version of the last change that the client knows. */
  since: number
  /**
   * Up to which version deletions were forgotten when the client began: it never had those tasks. Without this, a client
   * that begins after a purge would get `cursor_expired` for every cursor.
   */
  base: number
}

export function createChanges(db: Db, cursors: Cursors) {
  const query = prepareSql<Row>(db, changesStatement)
  const readVersions = createVersionReader(db)

  /** The place that a cursor names; `undefined` without one. Throws `validation_failed` when it is not this user's. */
  function readCursor(userId: UserId, cursor: string | undefined, loc = ['query', 'since']) {
    const [since, base] = cursors.read('changes', userId, { cursor }, loc)?.split('.').map(Number) ?? []
    return since === undefined ? undefined : { since, base: base! }
  }

  const sign = (userId: UserId, { since, base }: CursorContent) =>
    cursors.sign('changes', userId, `${since}.${base}`)

  /** The place of a client that is known to be at one, or begins after the last change, and the `state` of its answer. */
  async function readPlace(userId: UserId, cursor: string | undefined, loc?: string[]) {
    const known = readCursor(userId, cursor, loc)
    const versions = (await readVersions(userId)) ?? (await throwVersionless(db, userId))
    const base = checkPlace(known, versions)
    return { since: known?.since ?? versions.lastVersion, base, state: stateOf(versions) }
  }

  return {
    /**
     * The changes since a cursor, as the API sends them; `cursor` and `version` are the place after them. Throws
     * `validation_failed` for a cursor that is not this user's, and `cursor_expired` when deletions after it are forgotten,
     * or when the database is older than it (a restored backup).
     */
    async changes(userId: UserId, { since: cursor, limit = pageSizeDefault }: ChangesQuery) {
      const known = readCursor(userId, cursor)
      const found = await query.execute({ user: userId, since: known?.since ?? 0, limit })
      const versions = found[0] ?? (await throwVersionless(db, userId))
      const base = checkPlace(known, versions)
      const hasMore = found.length > limit
      const page = found.slice(0, limit)
      const changed = (of: Kind) => page.flatMap(({ kind, json }) => (kind === of && json) || [])
      const deleted = (of: Kind) =>
        page.flatMap(({ kind, id, json }) => (kind === of && !json ? `"${id}"` : []))
      const version = hasMore ? page.at(-1)!.version! : versions.lastVersion
      const next = sign(userId, { since: version, base })
      const json =
        `{"tasks":[${changed('task')}],"deleted":[${deleted('task')}],` +
        `"lists":[${changed('list')}],"deleted_lists":[${deleted('list')}],"cursor":"${next}","has_more":${hasMore}}`
      const count = page[0]!.id === null ? 0 : page.length
      return { json, state: stateOf(versions), count, cursor: next, version, hasMore }
    },

    /** The `state` that such an answer has now, without reading the changes. Throws as `changes` does. */
    async changesState(userId: UserId, { since }: ChangesQuery): Promise<string> {
      return (await readPlace(userId, since)).state
    },

    /** The place that a cursor names; without one, after the last change. Throws as `changes` does. */
    async changesStart(userId: UserId, cursor: string | undefined, loc?: string[]) {
      const place = await readPlace(userId, cursor, loc)
      return { cursor: sign(userId, place), version: place.since }
    },
  }
}

/** What an answer follows from, beside the question: at the same state the same question has the same answer. */
const stateOf = ({ lastVersion, forgottenVersion }: LastVersions) => `${lastVersion}.${forgottenVersion}`

/** The `base` of a client at a place, or of one that begins. Throws `cursor_expired`. */
function checkPlace(
  known: CursorContent | undefined,
  { lastVersion, forgottenVersion }: LastVersions,
): number {
  const { since, base } = known ?? { since: 0, base: forgottenVersion }
  if (since > lastVersion || forgottenVersion > Math.max(since, base)) throw new AppError('cursor_expired')
  return base
}
