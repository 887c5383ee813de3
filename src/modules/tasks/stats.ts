import { and, count, eq, gte, lt, ne, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { invalid } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { fields } from './fields.ts'
import type { Stats, StatsQuery } from './model.ts'
import { isLive, isTrashed, tasks } from './table.ts'

const isOpen = ne(tasks.status, 'completed')
const countIf = (...conditions: SQL[]) => sql<number>`${count()} filter (where ${and(...conditions)})`

/** `now` is for tests: the moment whose day is "today". */
export function createStats(db: Db, now = Temporal.Now.instant) {
  /**
   * The counts of a user's tasks, or of those in some lists; "today" is the day in `tz`. Throws `validation_failed` for an
   * unknown zone.
   */
  return async function stats(userId: UserId, { tz = 'UTC', list }: StatsQuery = {}): Promise<Stats> {
    const { start, end } = dayOf(now(), tz)
    const [counts] = await db
      .select({
        total: countIf(isLive),
        pending: countIf(isLive, eq(tasks.status, 'pending')),
        in_progress: countIf(isLive, eq(tasks.status, 'in_progress')),
        completed: countIf(isLive, eq(tasks.status, 'completed')),
        overdue: countIf(isLive, isOpen, lt(tasks.dueAt, sql`now()`)),
        due_today: countIf(isLive, isOpen, gte(tasks.dueAt, start), lt(tasks.dueAt, end)),
        trash: countIf(isTrashed),
      })
      .from(tasks)
      .where(and(eq(tasks.userId, userId), list && fields.list_id.filters.list.where(tasks.listId, list)))
    return counts!
  }
}

/** When the day of a moment begins and ends in a time zone. Computed here: every database has other names of zones. */
function dayOf(moment: Temporal.Instant, tz: string) {
  try {
    const start = moment.toZonedDateTimeISO(tz).startOfDay()
    // The next day's own start: where the clocks change at midnight, a day begins at 01:00.
    const end = start.add({ days: 1 }).startOfDay()
    return { start: start.toInstant().toString(), end: end.toInstant().toString() }
  } catch {
    const msg = 'Input should be a time zone such as Europe/Berlin'
    throw invalid({ loc: ['query', 'tz'], msg, type: 'timezone' })
  }
}
