import { sql } from 'drizzle-orm'
import type { Config } from '../../config/config.ts'
import type { Db } from '../../db/drizzle.ts'
import { users, userVersions } from '../../db/tables.ts'
import type { Log } from '../../telemetry/log.ts'
import { normalizeEmail } from './model.ts'
import type { Passwords } from './password-hash.ts'

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

type FirstUser = NonNullable<Config['firstUser']>

interface Parts {
  db: Db
  passwords: Passwords
  log: Log
}

/** Creates the user of the settings if the database has none. Of replicas that start together one does it. */
export async function createFirstUser({ db, passwords, log }: Parts, { email, password }: FirstUser) {
  if (await hasUsers(db)) return
  const passwordHash = await passwords.hash(password)
  const userId = await db.transaction(async tx => {
    // Registrations wait, too. Reading goes on.
    await tx.execute(sql`lock table ${users} in share row exclusive mode`)
    if (await hasUsers(tx)) return undefined
    return (await insertUser(tx, email, passwordHash)).id
  })
  if (userId) log.info('created the first user', { user_id: userId })
}

const hasUsers = async (db: Db) => (await db.select({ id: users.id }).from(users).limit(1)).length > 0
