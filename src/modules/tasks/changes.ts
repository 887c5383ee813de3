import { and, eq, gt, placeholder, sql } from 'drizzle-orm'
import { unionAll } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/client.ts'
import { taskCounters, tasks, taskTombstones } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { ChangesQuery } from './model.ts'
import { value } from './rows.ts'

const user = value('user', 'uuid')
const since = value('since', 'bigint')
const limit = value('limit', 'int')
/** One more than asked for: whether there are more. */
const more = placeholder('more')

/**
 * What has a number above `since`, in the order of the numbers: two ranges of two indexes, merged, and as one row. The
 * counter comes from the same snapshot: every change up to its number is in there, because numbers are committed in
 * order.
 */
export function changesQuery(db: Db) {
  const changed = db
    .select({
      version: tasks.version,
      id: tasks.id,
      json: sql<string | null>`case when ${tasks.deletedAt} is null then ${tasks.json} end`.as('json'),
    })
    .from(tasks)
    .where(and(eq(tasks.userId, user), gt(tasks.version, since)))
    .orderBy(tasks.version)
    .limit(more)
  const { version, id, userId } = taskTombstones
  const deleted = db
    .select({ version, id, json: sql<string | null>`null`.as('json') })
    .from(taskTombstones)
    .where(and(eq(userId, user), gt(version, since)))
    .orderBy(version)
    .limit(more)
  const both = unionAll(changed, deleted).as('both')
  const place = sql<number>`row_number() over (order by ${both.version})`.as('place')
  const feed = db.select({ version: both.version, id: both.id, json: both.json, place }).from(both).as('feed')
  const inPage = sql`${feed.place} <= ${limit}`
  return db
    .select({
      seq: taskCounters.seq,
      prunedThrough: taskCounters.prunedThrough,
      tasks: sql<
        string | null
      >`string_agg(${feed.json}, ',' order by ${feed.place}) filter (where ${inPage})`,
      deleted: sql<
        string | null
      >`string_agg('"' || ${feed.id} || '"', ',' order by ${feed.place}) filter (where ${inPage} and ${feed.json} is null)`,
      last: sql<number>`max(${feed.version}) filter (where ${inPage})`,
      hasMore: sql<boolean>`count(${feed.id}) > ${limit}`,
    })
    .from(taskCounters)
    .leftJoin(feed, sql`true`)
    .where(eq(taskCounters.userId, user))
    .groupBy(taskCounters.userId)
}

/** A place in the sequence of changes. */
interface Place {
  /** The number of the last change that the client knows. */
  since: number
  /**
   * How far deletions were forgotten when the client began with nothing: it never had what was gone by then. Without
   * this, a client that begins after a purge could never get past it.
   */
  base: number
}

export function createChanges(db: Db, cursors: Cursors) {
  const query = changesQuery(db).prepare('changes')

  /**
   * What has changed since a cursor, as JSON. Throws `validation_failed` for a cursor that is not this user's, and
   * `cursor_expired` when deletions after it are forgotten, or when the database is older than it (a restored backup).
   */
  return async function changes(
    userId: string,
    { since: cursor, limit = 50 }: ChangesQuery,
  ): Promise<string> {
    const known = cursor === undefined ? undefined : open(userId, cursor)
    const from = known?.since ?? 0
    const [page] = await query.execute({ user: userId, since: from, limit, more: limit + 1 })
    if (!page) throw new AppError('invalid_token')
    const base = known?.base ?? page.prunedThrough
    if (from > page.seq || page.prunedThrough > Math.max(from, base)) throw new AppError('cursor_expired')

    const place = { since: page.hasMore ? page.last : page.seq, base }
    const next = cursors.seal('changes', userId, `${place.since}.${place.base}`)
    return `{"tasks":[${page.tasks ?? ''}],"deleted":[${page.deleted ?? ''}],"cursor":"${next}","has_more":${page.hasMore}}`
  }

  function open(userId: string, cursor: string): Place {
    const content = cursors.open('changes', userId, cursor)
    if (content === undefined) throw wrongCursor('since')
    const [since, base] = content.split('.').map(Number)
    return { since: since!, base: base! }
  }
}
