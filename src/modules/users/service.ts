import { and, eq, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { users } from '../../db/tables.ts'
import type { Client } from '../../http/client.ts'
import type { Caller } from '../../http/require-user.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import type { WithPassword } from '../auth/current-password.ts'
import { endAccess } from '../auth/end-access.ts'
import { normalizeEmail } from '../auth/model.ts'
import type { Passwords } from '../auth/password-hash.ts'
import type { TokenCache } from '../auth/token-cache.ts'
import { eraseUser } from '../tasks/erasure.ts'

export type UserService = ReturnType<typeof createUserService>

interface Parts {
  db: Db
  passwords: Passwords
  withPassword: WithPassword
  tokenCache: Pick<TokenCache, 'revoke'>
}

/** How long the response to a deletion waits for the tasks to be deleted: enough for thousands. */
const eraseMsMax = 1000

/** A user's own account. Each change of it requires the password. */
export function createUserService({ db, passwords, withPassword, tokenCache }: Parts) {
  const profile = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    updated_at: users.updatedAt,
  }

  /**
   * Replaces the password if it is still the one that was checked, and ends the other sessions and the API tokens. Returns
   * what ended, `undefined` if the password has changed.
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
      return endAccess(tx, caller.id, { session: caller.sessionId, apiTokens: keepTokens })
    })

  /** Deletes the account if its password is still the one that was checked. Returns as `setPassword` does. */
  const deleteAccount = (caller: Caller, hash: string) =>
    db.transaction(async tx => {
      const own = and(eq(users.id, caller.id), eq(users.passwordHash, hash))
      const [user] = await tx.select({ id: users.id }).from(users).where(own).for('update')
      if (!user) return undefined
      const ended = await endAccess(tx, caller.id)
      await tx.delete(users).where(eq(users.id, caller.id))
      return ended
    })

  const revoke = (ended: Awaited<ReturnType<typeof endAccess>>) =>
    tokenCache.revoke([...ended.sessions, ...ended.apiTokens])

  return {
    /** The caller's account. Throws `invalid_token` if it was deleted after the token was checked. */
    async profile(userId: UserId) {
      const [user] = await db.select(profile).from(users).where(eq(users.id, userId))
      if (!user) throw new AppError('invalid_token')
      return user
    },

    /** An address that is taken breaks a constraint. Throws what `withPassword` throws. */
    changeEmail(userId: UserId, input: { email: string; current_password: string }, client: Client) {
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
        const newHash = await passwords.hash(input.new_password, client)
        return setPassword(caller, hash, newHash, input.keep_tokens)
      })
      revoke(ended)
    },

    /**
     * Deletes the account with its sessions at once, which makes its tasks unreachable, and then the tasks in steps. For
     * very many tasks the steps go on after the response; if they are interrupted, the purge deletes the rest.
     */
    async remove(caller: Caller, password: string, client: Client): Promise<void> {
      revoke(await withPassword(caller.id, password, client, hash => deleteAccount(caller, hash)))
      const erased = eraseUser(db, caller.id).catch(() => {})
      await Promise.race([erased, Bun.sleep(eraseMsMax)])
    },
  }
}
