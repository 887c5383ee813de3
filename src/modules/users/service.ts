import { and, eq, placeholder, sql } from 'drizzle-orm'
import { type Db, statement } from '../../db/client.ts'
import { brokenConstraint } from '../../db/constraint.ts'
import type { Driver } from '../../db/driver.ts'
import { sessions, users } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'
import type { Passwords } from '../auth/passwords.ts'
import { type AuthService, type Caller, emailKey } from '../auth/service.ts'
import type { Throttle } from '../auth/throttle.ts'
import { eraseUser } from '../tasks/erasure.ts'

export type UserService = ReturnType<typeof createUserService>

interface Parts {
  db: Db
  driver: Driver
  passwords: Passwords
  throttle: Throttle
  auth: Pick<AuthService, 'forgetSessions' | 'logout'>
}

/** How long the answer to a deletion waits for the tasks: for thousands of them, on any machine. */
const eraseMsMax = 1000

/** What a person does with the account. Whatever cannot be undone asks for the password once more. */
export function createUserService({ db, driver, passwords, throttle, auth }: Parts) {
  const profile = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    updated_at: users.updatedAt,
  }

  // Only if the password is still the one that was checked; the other sessions end in the same statement.
  const setPassword = statement<[sessionId: string | null]>(
    driver,
    sql`
    with person as (
      update ${users} set password_hash = ${placeholder('newHash')}::text, updated_at = now()
      where id = ${placeholder('user')}::uuid and password_hash = ${placeholder('hash')}::text
      returning id
    ), ended as (
      delete from ${sessions} s using person
      where s.user_id = person.id and s.id <> ${placeholder('session')}::uuid
      returning s.id
    )
    select ended.id from person left join ended on true`,
  )

  /** The hash behind the caller's password. Throws `incorrect_password`, `too_many_requests`, `invalid_token`. */
  async function checkPassword(userId: string, password: string, ip: string | null): Promise<string> {
    const [user] = await db
      .select({ key: users.emailKey, hash: users.passwordHash })
      .from(users)
      .where(eq(users.id, userId))
    if (!user) throw new AppError('invalid_token')
    const matches = await throttle.guess(user.key, ip, () => passwords.verify(password, user.hash))
    if (!matches) throw new AppError('incorrect_password')
    return user.hash
  }

  return {
    /** The caller's account. Throws `invalid_token` when it has gone since the token was checked. */
    async profile(userId: string) {
      const [user] = await db.select(profile).from(users).where(eq(users.id, userId))
      if (!user) throw new AppError('invalid_token')
      return user
    },

    /** Throws `email_taken`, also when two people race for an address, and what `checkPassword` throws. */
    async changeEmail(userId: string, input: { email: string; current_password: string }, ip: string | null) {
      const email = input.email.trim()
      const hash = await checkPassword(userId, input.current_password, ip)
      try {
        const [user] = await db
          .update(users)
          .set({ email, emailKey: emailKey(email), updatedAt: sql`now()` })
          .where(and(eq(users.id, userId), eq(users.passwordHash, hash)))
          .returning(profile)
        if (!user) throw new AppError('incorrect_password')
        return user
      } catch (error) {
        if (brokenConstraint(error) === 'users_email_key_unique') throw new AppError('email_taken')
        throw error
      }
    },

    /** Every other session of the account ends. */
    async changePassword(
      caller: Caller,
      input: { current_password: string; new_password: string },
      ip: string | null,
    ): Promise<void> {
      const hash = await checkPassword(caller.id, input.current_password, ip)
      const newHash = await passwords.hash(input.new_password)
      const ended = await setPassword({ user: caller.id, session: caller.sessionId, hash, newHash })
      if (ended.length === 0) throw new AppError('incorrect_password')
      auth.forgetSessions(ended.flatMap(([id]) => (id ? [id] : [])))
      // Once more: a sign-in with the old password may have been under way, unseen by the statement before.
      await auth.logout(caller, 'others')
    },

    /**
     * The account and its sessions are gone at once, and with them every way to its tasks. The tasks follow in steps; when
     * they are very many, or the steps are interrupted, behind the answer: then the purge ends what is left.
     */
    async remove(caller: Caller, password: string, ip: string | null): Promise<void> {
      const hash = await checkPassword(caller.id, password, ip)
      const gone = await db
        .delete(users)
        .where(and(eq(users.id, caller.id), eq(users.passwordHash, hash)))
        .returning({ id: users.id })
      if (gone.length === 0) throw new AppError('incorrect_password')
      auth.forgetSessions([caller.sessionId])
      const erased = eraseUser(db, caller.id).catch(() => {})
      await Promise.race([erased, Bun.sleep(eraseMsMax)])
    },
  }
}
