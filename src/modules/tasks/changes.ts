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
const limit = value('limit', 'int')
// Hidden from the planner, so that it keeps the generic plan. One row more than wanted tells whether there are more.
const rows = sql`(select ${limit} + 1)`

/**
 * The changes after `since` in the order of their versions: a range of two indexes each, merged, as one row. The last
 * version comes from the same snapshot: every change up to it is in there, because versions are committed in order.
 * Raw SQL, because the builder has no aggregates with a filter.
 */
const changesQuery = sql`
  select last_version, forgotten_version, count(id) > ${limit} as has_more,
         string_agg(json, ',' order by place) filter (where place <= ${limit}) as tasks,
         string_agg('"' || id || '"', ',' order by place) filter (where place <= ${limit} and json is null) as deleted,
         max(version) filter (where place <= ${limit}) as last
  from ${userVersions} versions left join (
    select *, row_number() over (order by version) as place from (
      (select id, version, case when deleted_at is null then json end as json
       from ${tasks} where user_id = ${user} and version > ${since} order by version limit ${rows})
      union all
      (select id, version, null from ${taskTombstones}
       where user_id = ${user} and version > ${since} order by version limit ${rows})
    ) changes
  ) feed on true
  where versions.user_id = ${user}
  group by versions.user_id`

interface Page {
  last_version: number
  forgotten_version: number
  has_more: boolean
  tasks: string | null
  deleted: string | null
  last: number | null
}

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

export function createChanges(db: Db, cursors: Cursors) {
  const query = prepareSql<Page>(db, 'changes', changesQuery)

  /**
   * The changes since a cursor, as JSON. Throws `validation_failed` for a cursor that is not this user's, and
   * `cursor_expired` when deletions after it are forgotten, or when the database is older than it (a restored backup).
   */
  return async function changes(
    userId: UserId,
    { since: cursor, limit = 50 }: ChangesQuery,
  ): Promise<string> {
    const known = cursor === undefined ? undefined : readCursor(userId, cursor)
    const from = known?.since ?? 0
    const [page] = await query.execute({ user: userId, since: from, limit })
    if (!page) throw new AppError('invalid_token')
    const { last_version, forgotten_version, has_more } = page
    const base = known?.base ?? forgotten_version
    if (from > last_version || forgotten_version > Math.max(from, base)) throw new AppError('cursor_expired')
    const next = cursors.sign('changes', userId, `${has_more ? page.last : last_version}.${base}`)
    return `{"tasks":[${page.tasks ?? ''}],"deleted":[${page.deleted ?? ''}],"cursor":"${next}","has_more":${has_more}}`
  }

  function readCursor(userId: UserId, cursor: string): Place {
    const content = cursors.verify('changes', userId, cursor)
    if (content === undefined) throw wrongCursor('since')
    const [since, base] = content.split('.').map(Number)
    return { since: since!, base: base! }
  }
}
