import { and, eq, inArray, ne, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { brokenConstraint } from '../../db/pg-error.ts'
import { sessions as sessionsTable, users } from '../../db/tables.ts'
import type { Client } from '../../http/client.ts'
import { AppError } from '../../lib/errors.ts'
import { normalizeEmail } from '../auth/model.ts'
import type { Passwords } from '../auth/password-hash.ts'
import type { Caller, Sessions } from '../auth/sessions.ts'
import type { Throttle } from '../auth/throttle.ts'
import { eraseUser } from '../tasks/erasure.ts'

export type UserService = ReturnType<typeof createUserService>

interface Parts {
  db: Db
  passwords: Passwords
  throttle: Throttle
  sessions: Pick<Sessions, 'revoke' | 'logout'>
}

/** How long the response to a deletion waits for the tasks to be deleted: enough for thousands. */
const eraseMsMax = 1000

/** A user's own account. Each change of it requires the password. */
export function createUserService({ db, passwords, throttle, sessions }: Parts) {
  const profile = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    updated_at: users.updatedAt,
  }

  /**
   * Replaces the password if it is still the one that was checked, and ends the other sessions, in one statement.
   * Returns a row for each ended session, one without an id if there was none, and no row if the password has changed.
   */
  function setPassword(caller: Caller, hash: string, newHash: string) {
    const changed = db.$with('changed').as(
      db
        .update(users)
        .set({ passwordHash: newHash, updatedAt: sql`now()` })
        .where(and(eq(users.id, caller.id), eq(users.passwordHash, hash)))
        .returning({ id: users.id }),
    )
    const isOthers = and(
      inArray(sessionsTable.userId, db.select({ id: changed.id }).from(changed)),
      ne(sessionsTable.id, caller.sessionId),
    )
    const ended = db
      .$with('ended')
      .as(db.delete(sessionsTable).where(isOthers).returning({ id: sessionsTable.id }))
    return db.with(changed, ended).select({ sessionId: ended.id }).from(changed).leftJoin(ended, sql`true`)
  }

  /** The hash of the caller's password. Throws `incorrect_password`, `too_many_requests`, `invalid_token`. */
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
  async function withPassword<T>(
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

  return {
    /** The caller's account. Throws `invalid_token` if it was deleted after the token was checked. */
    async profile(userId: string) {
      const [user] = await db.select(profile).from(users).where(eq(users.id, userId))
      if (!user) throw new AppError('invalid_token')
      return user
    },

    /** Throws `email_taken`, also when two users race for an address, and what `withPassword` throws. */
    async changeEmail(userId: string, input: { email: string; current_password: string }, client: Client) {
      const email = input.email.trim()
      try {
        return await withPassword(userId, input.current_password, client, async hash => {
          const [user] = await db
            .update(users)
            .set({ email, normalizedEmail: normalizeEmail(email), updatedAt: sql`now()` })
            .where(and(eq(users.id, userId), eq(users.passwordHash, hash)))
            .returning(profile)
          return user
        })
      } catch (error) {
        if (brokenConstraint(error) === 'users_normalized_email_unique') throw new AppError('email_taken')
        throw error
      }
    },

    /** Ends every other session of the account. Throws what `withPassword` throws. */
    async changePassword(
      caller: Caller,
      input: { current_password: string; new_password: string },
      client: Client,
    ): Promise<void> {
      const ended = await withPassword(caller.id, input.current_password, client, async hash => {
        const newHash = await passwords.hash(input.new_password, client.signal)
        const rows = await setPassword(caller, hash, newHash)
        return rows.length > 0 ? rows : undefined
      })
      sessions.revoke(ended.flatMap(({ sessionId }) => sessionId ?? []))
      // Again: a concurrent sign-in with the old password may have been invisible to the first statement.
      await sessions.logout(caller, 'others')
    },

    /**
     * Deletes the account with its sessions at once, which makes its tasks unreachable, and then the tasks in steps. For
     * very many tasks the steps go on after the response; if they are interrupted, the purge deletes the rest.
     */
    async remove(caller: Caller, password: string, client: Client): Promise<void> {
      await withPassword(caller.id, password, client, async hash => {
        const [deleted] = await db
          .delete(users)
          .where(and(eq(users.id, caller.id), eq(users.passwordHash, hash)))
          .returning({ id: users.id })
        return deleted
      })
      sessions.revoke([caller.sessionId])
      const erased = eraseUser(db, caller.id).catch(() => {})
      await Promise.race([erased, Bun.sleep(eraseMsMax)])
    },
  }
}
