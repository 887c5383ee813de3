import { and, desc, eq, inArray } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessions, tickets } from '../../db/tables.ts'

/** What a user has only so much of: by which column a row is known, and which says what goes first. */
const limited = {
  sessions: { table: sessions, key: sessions.id, age: sessions.lastUsedAt },
  tickets: { table: tickets, key: tickets.hash, age: tickets.expiresAt },
}

/** The condition for the oldest of a user's sessions or tickets, those beyond the `max` latest. */
export function isSurplus(db: Db, what: keyof typeof limited, userId: string, max: number) {
  const { table, key, age } = limited[what]
  const ofUser = eq(table.userId, userId)
  const surplus = db.select({ key }).from(table).where(ofUser).orderBy(desc(age)).offset(max)
  return and(ofUser, inArray(key, surplus))
}
