import type { Db } from '../../db/drizzle.ts'
import { users, userVersions } from '../../db/tables.ts'
import { normalizeEmail } from './model.ts'

/** Creates a user. The counter comes along in the same statement: without it the user cannot write tasks. */
export async function insertUser(db: Db, address: string, passwordHash: string) {
  const id = Bun.randomUUIDv7()
  const email = address.trim()
  const user = { id, email, normalizedEmail: normalizeEmail(email), passwordHash }
  const inserted = db
    .$with('inserted')
    .as(db.insert(users).values(user).returning({ createdAt: users.createdAt }))
  const counter = db
    .$with('counter')
    .as(db.insert(userVersions).values({ userId: id }).returning({ userId: userVersions.userId }))
  const [row] = await db.with(inserted, counter).select().from(inserted)
  return { id, email, created_at: row!.createdAt }
}
