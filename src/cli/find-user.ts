import { eq } from 'drizzle-orm'
import type { Db } from '../db/drizzle.ts'
import { users } from '../db/tables.ts'
import { isUuid } from '../lib/uuid.ts'
import { normalizeEmail } from '../modules/auth/service.ts'
import { printable } from './terminal.ts'

/** The account with an e-mail address, in any case, or with an id. Throws an Error with one line when there is none. */
export async function findPerson(db: Db, who: string): Promise<{ id: string; email: string }> {
  const condition = isUuid(who) ? eq(users.id, who) : eq(users.normalizedEmail, normalizeEmail(who))
  const [person] = await db.select({ id: users.id, email: users.email }).from(users).where(condition)
  if (!person) throw new Error(`there is no user ${printable(who)}`)
  return person
}
