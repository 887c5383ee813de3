import { eq, type SQL } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessions, users } from '../../db/tables.ts'
import type { Client } from '../../http/client.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { nilUuid } from '../../lib/uuid.ts'
import type { Passwords } from './password-hash.ts'
import type { Throttle } from './throttle.ts'

export type WithPassword = ReturnType<typeof createWithPassword>

interface Parts {
  db: Db
  passwords: Passwords
  throttle: Throttle
}

/** Which account a password is said to be of, and the key under which attempts on it are counted. */
interface Account {
  which: SQL | undefined
  key: string
}

/**
 * Runs `write` for the account whose password this is, with the hash that was checked; `write` returns `undefined` if the
 * account has another one by now. Then it is tried once more, because a sign-in may have renewed the hash (BCRYPT_COST) of
 * the same password. Returns `undefined` for a wrong password. Throws `too_many_requests`.
 */
export async function provePassword<T>(
  { db, passwords, throttle }: Parts,
  { which, key }: Account,
  password: string,
  client: Client,
  write: (account: { id: string; hash: string }) => Promise<T | undefined>,
): Promise<T | undefined> {
  const counted = { account: key, addresses: () => addressesOf(db, which) }
  for (let attempt = 1; attempt <= 2; attempt++) {
    const account = await throttle.limitAttempts(counted, client, async () => {
      const [found] = await db.select({ id: users.id, hash: users.passwordHash }).from(users).where(which)
      return (await passwords.verify(password, found?.hash, client)) ? found : undefined
    })
    if (!account) return undefined
    const result = await write(account)
    if (result !== undefined) return result
  }
  return undefined
}

/** Where the user of an account is signed in. It takes as long when there is no such account. */
async function addressesOf(db: Db, which: SQL | undefined) {
  const [user = { id: nilUuid }] = await db.select({ id: users.id }).from(users).where(which)
  const found = await db
    .selectDistinct({ ip: sessions.ip })
    .from(sessions)
    .where(eq(sessions.userId, user.id))
  return found.map(({ ip }) => ip)
}

/** For what a signed-in user may do only with the current password. */
export const createWithPassword = (parts: Parts) =>
  /** `provePassword` for a user. Throws `incorrect_password`, `too_many_requests`, `invalid_token`. */
  async function withPassword<T>(
    userId: UserId,
    password: string,
    client: Client,
    write: (hash: string) => Promise<T | undefined>,
  ): Promise<T> {
    const which = eq(users.id, userId)
    const [user] = await parts.db.select({ key: users.normalizedEmail }).from(users).where(which)
    if (!user) throw new AppError('invalid_token')
    const account = { which, key: user.key }
    const result = await provePassword(parts, account, password, client, ({ hash }) => write(hash))
    if (result === undefined) throw new AppError('incorrect_password')
    return result
  }
