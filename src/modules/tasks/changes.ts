import { sql } from 'drizzle-orm'
import { statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks, taskTombstones } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { Changes, ChangesQuery } from './model.ts'
import { columnsOf, type TaskRow, toTask, value } from './rows.ts'

const user = value('user', 'uuid')
const since = value('since', 'bigint')
const limit = value('limit', 'int')

/**
 * What has a number above `since`, in the order of the numbers: two ranges of two indexes, merged. The counter comes
 * from the same snapshot: whatever has a number up to its own is in there too, because numbers are committed in order.
 */
export const changesQuery = sql`
  select c.seq, c.pruned_through, f.gone, ${columnsOf('f')}
  from ${taskCounters} c left join lateral (
    (select t.deleted_at is not null as gone, ${columnsOf('t')} from ${tasks} t
     where t.user_id = ${user} and t.version > ${since} order by t.version limit ${limit})
    union all
    (select true, d.id, d.version, null from ${taskTombstones} d
     where d.user_id = ${user} and d.version > ${since} order by d.version limit ${limit})
    order by version limit ${limit}
  ) f on true
  where c.user_id = ${user}
  order by f.version`

/** A place in the sequence of changes. */
interface Place {
  /** The number of the last change that the client knows. */
  since: number
  /**
   * How far deletions were forgotten when the client began with nothing: what was gone by then it never had. Without
   * this, whoever begins after a purge could never get past it.
   */
  base: number
}

export function createChanges(driver: Driver, cursors: Cursors) {
  const query = statement<[seq: number, pruned: number, gone: boolean | null, ...TaskRow]>(
    driver,
    changesQuery,
  )

  /**
   * What has changed since a cursor. Throws `validation_failed` for a cursor that is not this person's, and
   * `cursor_expired` when deletions after it are forgotten, or when the database is older than it (a restored backup).
   */
  return async function changes(
    userId: string,
    { since: cursor, limit = 50 }: ChangesQuery,
  ): Promise<Changes> {
    const known = cursor === undefined ? undefined : open(userId, cursor)
    const from = known?.since ?? 0
    const rows = await query({ user: userId, since: from, limit: limit + 1 })
    const [counter] = rows
    if (!counter) throw new AppError('invalid_token')
    const [seq, pruned] = counter
    const base = known?.base ?? pruned
    if (from > seq || pruned > Math.max(from, base)) throw new AppError('cursor_expired')

    const hasMore = rows.length > limit
    const page = rows.slice(0, limit).filter(([, , gone]) => gone !== null)
    const last = page.at(-1)
    const place = { since: hasMore ? last![4] : seq, base }
    return {
      tasks: page.filter(([, , gone]) => !gone).map(row => toTask(row[5])),
      deleted: page.filter(([, , gone]) => gone).map(row => row[3]),
      cursor: cursors.seal('changes', userId, `${place.since}.${place.base}`),
      has_more: hasMore,
    }
  }

  function open(userId: string, cursor: string): Place {
    const content = cursors.open('changes', userId, cursor)
    if (content === undefined) throw wrongCursor('since')
    const [since, base] = content.split('.').map(Number)
    return { since: since!, base: base! }
  }
}
