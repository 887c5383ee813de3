import { type Column, inArray, lt, notBetween, type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { apiTokens, rateLimits, sessionEnds, sessions, tickets } from '../../db/tables.ts'

/** Jobs that delete what has expired. It is refused from that moment on, whenever they run. */
export function createCleanUp(db: Db) {
  const inSeconds = (seconds: number) => sql`(date_part('epoch', now()) + ${seconds}) * 1000`
  const isOver = (expiresAt: Column) => lt(expiresAt, sql`now()`)
  // Not all at once: each end is recorded for the replicas.
  const some = db.select({ id: sessions.id }).from(sessions).where(isOver(sessions.expiresAt)).limit(1000)
  const expired: [what: string, table: PgTable, which: SQL][] = [
    ['sessions', sessions, inArray(sessions.id, some)],
    ['API tokens', apiTokens, isOver(apiTokens.expiresAt)],
    ['tickets', tickets, isOver(tickets.expiresAt)],
    // By then every replica has read them.
    ['revocations', sessionEnds, lt(sessionEnds.endedAt, sql`now() - interval '5 minutes'`)],
    // An hour late: they expire by the clock of the replica that wrote them. Later than any limit: that clock was wrong.
    ['limits', rateLimits, notBetween(rateLimits.expire, inSeconds(-3600), inSeconds(2 * 3600))],
  ]
  return expired.map(([what, table, which]) => ({
    name: `clean up ${what}`,
    everySeconds: 600,
    run: async () => {
      await db.delete(table).where(which)
    },
  }))
}
