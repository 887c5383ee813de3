import { and, eq, isNotNull, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { afterCursor, type Page, type PageRow, page, readPage } from '../../db/page.ts'
import type { UserId } from '../../lib/user-id.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { TrashQuery } from './model.ts'
import { tasks } from './table.ts'

/** The most recently deleted task first. */
const order = [tasks.deletedAt, tasks.id].map(column => ({ by: sql`${column}`, isDescending: true }))

const deletedAt = sql`to_char(${tasks.deletedAt} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
const item = sql`left(${tasks.json}, -1) || ',"deleted_at":"' || ${deletedAt} || '"}'`

export function createTrash(db: Db, cursors: Cursors) {
  /** A page of the user's trash. Throws `validation_failed` for a cursor of another list. */
  return async function trash(userId: UserId, { limit = 50, cursor }: TrashQuery): Promise<Page> {
    const after = cursor === undefined ? undefined : readCursor(userId, cursor)
    const where = and(eq(tasks.userId, userId), isNotNull(tasks.deletedAt), after)!
    const size = { pageSize: sql`${limit}::int`, limit: sql`${limit + 1}::int` }
    const rows = db.execute<PageRow>(page({ from: tasks, where, order, item, ...size }))
    return readPage(rows, last => cursors.sign('trash', userId, last))
  }

  function readCursor(userId: UserId, cursor: string) {
    const content = cursors.verify('trash', userId, cursor)
    if (content === undefined) throw wrongCursor('cursor')
    const [deletedAt, id] = JSON.parse(content)
    return afterCursor(order, [sql`${deletedAt}::timestamptz`, sql`${id}::uuid`])
  }
}
