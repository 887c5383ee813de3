import { and, eq, ne, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { apiTokens, sessions as sessionsTable, users } from '../../db/tables.ts'
import type { Client } from '../../http/client.ts'
import type { Caller } from '../../http/require-user.ts'
import { AppError } from '../../lib/errors.ts'
import type { WithPassword } from '../auth/current-password.ts'
import { normalizeEmail } from '../auth/model.ts'
import type { Passwords } from '../auth/password-hash.ts'
import type { Sessions } from '../auth/sessions.ts'
import { eraseUser } from '../tasks/erasure.ts'

export type UserService = ReturnType<typeof createUserService>

interface Parts {
  db: Db
  passwords: Passwords
  withPassword: WithPassword
  sessions: Pick<Sessions, 'revoke'>
}

/** How long the response to a deletion waits for the tasks to be deleted: enough for thousands. */
const eraseMsMax = 1000

/** A user's own account. Each change of it requires the password. */
export function createUserService({ db, passwords, withPassword, sessions }: Parts) {
  const profile = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    updated_at: users.updatedAt,
  }

  /**
   * Replaces the password if it is still the one that was checked, and ends the other sessions and the API tokens. Returns
   * the ids of what ended, `undefined` if the password has changed.
   */
  const setPassword = (caller: Caller, hash: string, newHash: string, keepTokens?: boolean) =>
    db.transaction(async tx => {
      // Locks the row: whatever a concurrent sign-in with the old password writes is committed before the deletions.
      const [changed] = await tx
        .update(users)
        .set({ passwordHash: newHash, updatedAt: sql`now()` })
        .where(and(eq(users.id, caller.id), eq(users.passwordHash, hash)))
        .returning({ id: users.id })
      if (!changed) return undefined
      const others = and(eq(sessionsTable.userId, caller.id), ne(sessionsTable.id, caller.sessionId))
      const ended = await tx.delete(sessionsTable).where(others).returning({ id: sessionsTable.id })
      const tokens = keepTokens
        ? []
        : await tx.delete(apiTokens).where(eq(apiTokens.userId, caller.id)).returning({ id: apiTokens.id })
      return [...ended, ...tokens].map(({ id }) => id)
    })

  return {
    /** The caller's account. Throws `invalid_token` if it was deleted after the token was checked. */
    async profile(userId: string) {
      const [user] = await db.select(profile).from(users).where(eq(users.id, userId))
      if (!user) throw new AppError('invalid_token')
      return user
    },

    /** An address that is taken breaks a constraint. Throws what `withPassword` throws. */
    changeEmail(userId: string, input: { email: string; current_password: string }, client: Client) {
      const email = input.email.trim()
      return withPassword(userId, input.current_password, client, async hash => {
        const [user] = await db
          .update(users)
          .set({ email, normalizedEmail: normalizeEmail(email), updatedAt: sql`now()` })
          .where(and(eq(users.id, userId), eq(users.passwordHash, hash)))
          .returning(profile)
        return user
      })
    },

    /** Ends every other session of the account, and its API tokens unless they are kept. Throws what `withPassword` throws. */
    async changePassword(
      caller: Caller,
      input: { current_password: string; new_password: string; keep_tokens?: boolean },
      client: Client,
    ): Promise<void> {
      const ended = await withPassword(caller.id, input.current_password, client, async hash => {
        const newHash = await passwords.hash(input.new_password, client.signal)
        return setPassword(caller, hash, newHash, input.keep_tokens)
      })
      sessions.revoke(ended)
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
