import { and, desc, eq, inArray, ne } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessions, tickets } from '../../db/tables.ts'

/** What a user has only so much of: by which column a row is known, and which says what goes first. */
const limited = {
  sessions: { table: sessions, key: sessions.id, age: sessions.lastUsedAt },
  tickets: { table: tickets, key: tickets.hash, age: tickets.expiresAt },
}

/**
 * The condition for the oldest of a user's sessions or tickets, so that `max` remain with the one that was just made. That
 * one stays even if the clock was set back, and all others look newer.
 */
export function isSurplus(db: Db, what: keyof typeof limited, userId: string, made: string, max: number) {
  const { table, key, age } = limited[what]
  const others = and(eq(table.userId, userId), ne(key, made))
  const surplus = db
    .select({ key })
    .from(table)
    .where(others)
    .orderBy(desc(age))
    .offset(max - 1)
  return and(others, inArray(key, surplus))
}
