import { eq } from 'drizzle-orm'
import type { Db } from '../db/drizzle.ts'
import { users } from '../db/tables.ts'
import { isUuid } from '../lib/uuid.ts'
import { normalizeEmail } from '../modules/auth/model.ts'
import { printable } from './terminal.ts'

/** The account with an e-mail address, in any case, or with an id. Throws an Error with one line when there is none. */
export async function findUser(db: Db, name: string): Promise<{ id: string; email: string }> {
  const condition = isUuid(name) ? eq(users.id, name) : eq(users.normalizedEmail, normalizeEmail(name))
  const [user] = await db.select({ id: users.id, email: users.email }).from(users).where(condition)
  if (!user) throw new Error(`there is no user ${printable(name)}`)
  return user
}
