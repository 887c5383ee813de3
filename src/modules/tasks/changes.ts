import { sql } from 'drizzle-orm'
import { type Db, prepareSql } from '../../db/drizzle.ts'
import { taskTombstones, userVersions } from '../../db/tables.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { ChangesQuery } from './model.ts'
import { value } from './rows.ts'
import { tasks } from './table.ts'

const user = value('user', 'uuid')
const since = value('since', 'bigint')
// Hidden from the planner, so that it keeps one plan; one more than asked for says whether there are more.
const rows = sql`(select ${value('limit', 'int')} + 1)`

/**
 * What has a version above `since`, in the order of the versions: two ranges of two indexes, merged. `last_version` comes
 * from the same snapshot: every change up to it is in there, because versions are committed in order. Raw SQL, because
 * the builder has no words for two limits in a union.
 */
const changesQuery = sql`
  select last_version, forgotten_version, change.*
  from ${userVersions} known left join lateral (
    (select id, version, case when deleted_at is null then json end as json
     from ${tasks} where user_id = known.user_id and version > ${since} order by version limit ${rows})
    union all
    (select id, version, null from ${taskTombstones}
     where user_id = known.user_id and version > ${since} order by version limit ${rows})
    order by version limit ${rows}
  ) change on true
  where known.user_id = ${user}
  order by version`

/** A change, or nulls when there is none; without JSON it is a deletion. */
type Row = { last_version: number; forgotten_version: number } & (
  | { id: string; version: number; json: string | null }
  | { id: null; version: null; json: null }
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
export interface ChangesPage {
  /** As the API sends it. */
  json: string
  /** The number of entries. */
  count: number
  /** The place after the last entry, for the client, and its version. */
  cursor: string
  version: number
  hasMore: boolean
}

/** Where a client begins. */
export interface ChangesStart {
  cursor: string | undefined
  /** Where the request has the cursor. */
  sentAs: SentAs
}

type SentAs = Parameters<typeof wrongCursor>

export function createChanges(db: Db, cursors: Cursors) {
  const query = prepareSql<Row>(db, 'changes', changesQuery)

  /** Throws as `changes` does. */
  async function read(userId: UserId, known: Place | undefined, limit: number) {
    const from = known?.since ?? 0
    const found = await query.execute({ user: userId, since: from, limit })
    if (!found[0]) throw new AppError('invalid_token')
    const { last_version, forgotten_version } = found[0]
    const base = known?.base ?? forgotten_version
    if (from > last_version || forgotten_version > Math.max(from, base)) throw new AppError('cursor_expired')
    return { found, last_version, base }
  }

  /**
   * The changes since a cursor. Throws `validation_failed` for a cursor that is not this user's, and `cursor_expired`
   * when deletions after it are forgotten, or when the database is older than it (a restored backup).
   */
  async function changes(userId: UserId, { since: cursor, limit = 50 }: ChangesQuery): Promise<ChangesPage> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor)
    const { found, last_version, base } = await read(userId, known, limit)
    const has_more = found.length > limit
    const page = found.slice(0, limit)
    const tasks = page.flatMap(({ json }) => json ?? [])
    const deleted = page.flatMap(({ id, json }) => (id && !json ? `"${id}"` : []))
    const version = has_more ? page.at(-1)!.version! : last_version
    const next = sign(userId, version, base)
    return {
      json: `{"tasks":[${tasks}],"deleted":[${deleted}],"cursor":"${next}","has_more":${has_more}}`,
      count: tasks.length + deleted.length,
      cursor: next,
      version,
      hasMore: has_more,
    }
  }

  /** The place that a cursor names; without one, after the last change. Throws as `changes` does. */
  async function changesStart(
    userId: UserId,
    { cursor, sentAs }: ChangesStart,
  ): Promise<Pick<ChangesPage, 'cursor' | 'version'>> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor, sentAs)
    const { last_version, base } = await read(userId, known, 0)
    const version = known?.since ?? last_version
    return { cursor: sign(userId, version, base), version }
  }

  const sign = (userId: UserId, version: number, base: number) =>
    cursors.sign('changes', userId, `${version}.${base}`)

  function readCursor(userId: UserId, cursor: string, sentAs: SentAs = ['since']): Place {
    const content = cursors.verify('changes', userId, cursor)
    if (content === undefined) throw wrongCursor(...sentAs)
    const [since, base] = content.split('.').map(Number)
    return { since: since!, base: base! }
  }

  return { changes, changesStart }
}
