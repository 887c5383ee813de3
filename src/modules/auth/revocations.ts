import { gt, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessionEnds } from '../../db/tables.ts'
import { withoutTimeBudget } from '../../db/time-budget.ts'
import { type Revocations, revocationWindowSeconds } from './token-cache.ts'

/**
 * Reads which sessions and API tokens ended in the last seconds; triggers record them. A request may begin it, but does not
 * wait for it.
 */
export function createRevocationPoll(db: Db): () => Promise<Revocations> {
  // Prepared, because it runs four times a second. An aggregate: one row, also when nothing ended.
  const recent = db
    .select({
      sessionIds: sql<string[]>`coalesce(array_agg(${sessionEnds.sessionId}::text), '{}')`,
      databaseTime: sql<number>`(date_part('epoch', now()) * 1000)::bigint`,
    })
    .from(sessionEnds)
    .where(gt(sessionEnds.endedAt, sql`now() - make_interval(secs => ${revocationWindowSeconds}::int)`))
    .prepare('poll_revocations')

  return () => withoutTimeBudget(async () => (await recent.execute())[0]!)
}
