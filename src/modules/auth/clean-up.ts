import { type Column, inArray, lt, notBetween, type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { apiTokens, rateLimits, sessionEnds, sessions, tickets } from '../../db/tables.ts'

/** Jobs that delete what has expired. It is refused from that moment on, whenever they run. */
export function createCleanUp(db: Db) {
  const inMinutes = (minutes: number) => sql`now() + make_interval(mins => ${minutes}::int)`
  const inMilliseconds = (moment: SQL) => sql`date_part('epoch', ${moment}) * 1000`
  const isOver = (expiresAt: Column) => lt(expiresAt, sql`now()`)
  // Not all at once: each end is recorded for the replicas. Fewer sign-ins than that fit into ten minutes.
  const some = db.select({ id: sessions.id }).from(sessions).where(isOver(sessions.expiresAt)).limit(10_000)
  const expired: [what: string, table: PgTable, which: SQL][] = [
    ['sessions', sessions, inArray(sessions.id, some)],
    ['API tokens', apiTokens, isOver(apiTokens.expiresAt)],
    ['tickets', tickets, isOver(tickets.expiresAt)],
    // By then every replica has read them. Of the future are those of a clock that was wrong.
    ['revocations', sessionEnds, notBetween(sessionEnds.endedAt, inMinutes(-5), inMinutes(5))],
    // An hour late: they expire by the clock of the replica that wrote them. Later than any limit: that clock was wrong.
    [
      'limits',
      rateLimits,
      notBetween(rateLimits.expire, inMilliseconds(inMinutes(-60)), inMilliseconds(inMinutes(120))),
    ],
  ]
  return expired.map(([what, table, which]) => ({
    name: `clean up ${what}`,
    everySeconds: 600,
    run: async () => {
      await db.delete(table).where(which)
    },
  }))
}
