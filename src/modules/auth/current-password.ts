import { eq } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { users } from '../../db/tables.ts'
import type { Client } from '../../http/client.ts'
import { AppError } from '../../lib/errors.ts'
import type { Passwords } from './password-hash.ts'
import type { Throttle } from './throttle.ts'

export type WithPassword = ReturnType<typeof createWithPassword>

interface Parts {
  db: Db
  passwords: Passwords
  throttle: Throttle
}

/** For what a signed-in user may do only with the current password. */
export function createWithPassword({ db, passwords, throttle }: Parts) {
  /** The hash of the user's password. Throws `incorrect_password`, `too_many_requests`, `invalid_token`. */
  async function checkPassword(userId: string, password: string, { ip, signal }: Client): Promise<string> {
    const [user] = await db
      .select({ key: users.normalizedEmail, hash: users.passwordHash })
      .from(users)
      .where(eq(users.id, userId))
    if (!user) throw new AppError('invalid_token')
    const matches = await throttle.limitAttempts(user.key, ip, () =>
      passwords.verify(password, user.hash, signal),
    )
    if (!matches) throw new AppError('incorrect_password')
    return user.hash
  }

  /**
   * Runs `write` with the hash that was checked; `write` returns `undefined` if the account has another one by now. Then
   * it is tried once more, because a sign-in may have renewed the hash (BCRYPT_COST) of the same password. Throws what
   * `checkPassword` throws.
   */
  return async function withPassword<T>(
    userId: string,
    password: string,
    client: Client,
    write: (hash: string) => Promise<T | undefined>,
  ): Promise<T> {
    for (let attempt = 1; attempt <= 2; attempt++) {
      const result = await write(await checkPassword(userId, password, client))
      if (result !== undefined) return result
    }
    throw new AppError('incorrect_password')
  }
}
