import { gt, lt, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessionEnds } from '../../db/tables.ts'
import { withoutTimeBudget } from '../../db/time-budget.ts'
import { type Revocations, revocationWindowSeconds } from './token-cache.ts'

/** The records of ended sessions and API tokens, which triggers write and every replica polls. */
export function createRevocations(db: Db) {
  // Prepared, because it runs four times a second. An aggregate: one row, also when nothing ended.
  const recent = db
    .select({
      sessionIds: sql<string[]>`coalesce(array_agg(${sessionEnds.sessionId}::text), '{}')`,
      databaseTime: sql<number>`(date_part('epoch', now()) * 1000)::bigint`,
    })
    .from(sessionEnds)
    .where(gt(sessionEnds.endedAt, sql`now() - make_interval(secs => ${revocationWindowSeconds}::int)`))
    .prepare('poll_revocations')

  return {
    /** What ended in the last seconds. A request may begin it, but does not wait for it. */
    poll: (): Promise<Revocations> => withoutTimeBudget(async () => (await recent.execute())[0]!),

    /** Deletes the records that every replica has read. */
    async cleanUp(): Promise<void> {
      await db.delete(sessionEnds).where(lt(sessionEnds.endedAt, sql`now() - interval '5 minutes'`))
    },
  }
}
