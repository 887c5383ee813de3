import { and, desc, eq, isNotNull, sql } from 'drizzle-orm'
import type { Db } from '../../db/client.ts'
import { tasks } from '../../db/schema.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { TrashQuery } from './model.ts'

/** When a task was deleted, as the API writes moments. */
const deletedAt = sql`to_char(${tasks.deletedAt} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

export function createTrash(db: Db, cursors: Cursors) {
  /**
   * A page of the user's trash as JSON, the last deleted task first. Throws `validation_failed` for a cursor from
   * elsewhere.
   */
  return async function trash(userId: string, { limit = 50, cursor }: TrashQuery) {
    const after = cursor === undefined ? undefined : openCursor(userId, cursor)
    const page = db.$with('page').as(
      db
        .select({
          json: sql<string>`left(${tasks.json}, -1) || ',"deleted_at":"' || ${deletedAt} || '"}'`.as('json'),
          place: sql<string>`${deletedAt} || ' ' || ${tasks.id}`.as('place'),
          n: sql<number>`row_number() over (order by ${tasks.deletedAt} desc, ${tasks.id} desc)`.as('n'),
        })
        .from(tasks)
        .where(and(eq(tasks.userId, userId), isNotNull(tasks.deletedAt), after))
        .orderBy(desc(tasks.deletedAt), desc(tasks.id))
        // One more than asked for: whether there is a next page.
        .limit(limit + 1),
    )
    const [row] = await db
      .with(page)
      .select({
        items: sql<
          string | null
        >`string_agg(${page.json}, ',' order by ${page.n}) filter (where ${page.n} <= ${limit})`,
        last: sql<string | null>`max(${page.place}) filter (where ${page.n} = ${limit})`,
        hasMore: sql<boolean>`count(*) > ${limit}`,
      })
      .from(page)
    const { items, last, hasMore } = row!
    return { items: items ?? '', next: hasMore ? cursors.seal('trash', userId, last!) : undefined }
  }

  function openCursor(userId: string, cursor: string) {
    const place = cursors.open('trash', userId, cursor)
    if (place === undefined) throw wrongCursor('cursor')
    const [deletedAt, id] = place.split(' ')
    return sql`(${tasks.deletedAt}, ${tasks.id}) < (${deletedAt}::timestamptz, ${id}::uuid)`
  }
}
