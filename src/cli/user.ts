import { count, eq, type SQL, sql } from 'drizzle-orm'
import { t } from 'elysia'
import type { Config } from '../config/config.ts'
import { createDb, type Db } from '../db/drizzle.ts'
import { afterCursor, orderKeys } from '../db/page.ts'
import { brokenConstraint } from '../db/pg-error.ts'
import { apiTokens, sessions, toInstant, users } from '../db/tables.ts'
import type { AccessChange } from '../modules/auth/end-access.ts'
import { email, newPassword, normalizeEmail } from '../modules/auth/model.ts'
import { insertUser } from '../modules/auth/new-user.ts'
import { createPasswords } from '../modules/auth/password-hash.ts'
import { tasks } from '../modules/tasks/table.ts'
import { createCheck } from './check-schema.ts'
import { findUser } from './find-user.ts'
import { applyMigrations, openDatabase, withDatabase } from './open-database.ts'
import { patiently } from './patiently.ts'
import { readConfig } from './read-config.ts'
import { ask, minuteOf, print, printable, printRows, readPassword, say, UsageError } from './terminal.ts'

/** Prints every account: a table at a terminal, one line of JSON each elsewhere or with `json`. */
export async function listUsers(
  _: string,
  { json = !process.stdout.isTTY }: { json?: boolean },
): Promise<void> {
  await withDatabase(async db => {
    await printRows(json, accounts(db), {
      ID: user => user.id,
      'E-MAIL': user => printable(user.email),
      CREATED: user => user.created_at.slice(0, 10),
      TASKS: user => String(user.tasks),
      SESSIONS: user => String(user.sessions),
      'LAST USED': user => minuteOf(user.last_used_at),
      DISABLED: user => user.disabled_at?.slice(0, 10) ?? '',
    })
  })
}

/** Creates an account. The password comes from stdin or is typed without an echo. */
export async function createUser(address: string): Promise<void> {
  const problem = createCheck(t.Object({ email }))({ email: address })
  if (problem) throw new UsageError(problem)
  const config = readConfig()
  const password = await readNewPassword()
  await using driver = await openDatabase(config)
  try {
    await applyMigrations(driver)
    const made = await insertUser(createDb(driver), address, await hashPassword(config, password))
    await print(`${made.id}\n`)
    say(`created user ${printable(made.email)}`)
  } catch (error) {
    if (brokenConstraint(error) !== 'users_normalized_email_unique') throw error
    throw new Error('another account here has this e-mail address')
  }
}

/** Sets a new password and ends the sessions and API tokens of the account. */
export async function resetPassword(name: string): Promise<void> {
  const config = readConfig()
  await changeUser(name, 'has a new password', async () => {
    return { passwordHash: await hashPassword(config, await readNewPassword()) }
  })
}

/** Refuses sign-ins to the account and ends its sessions and API tokens. Its data stays. */
export async function disableUser(name: string): Promise<void> {
  await changeUser(name, 'is disabled', () => 'disable')
}

/** Undoes `disableUser`. */
export async function enableUser(name: string): Promise<void> {
  await withDatabase(async db => {
    const user = await findUser(db, name)
    await db.update(users).set({ disabledAt: null, updatedAt: sql`now()` }).where(eq(users.id, user.id))
    say(`${printable(user.email)} is enabled`)
  })
}

/** Deletes the account, its sessions and its tasks for good. Asks first, unless `yes`. */
export async function deleteUser(name: string, { yes = false }: { yes?: boolean }): Promise<void> {
  await withDatabase(async (db, { erase }) => {
    const user = await findUser(db, name)
    if (!yes) await confirm(db, user)
    await db.delete(users).where(eq(users.id, user.id))
    await patiently(() => erase(user.id))
    say(`${printable(user.email)} is deleted`)
  })
}

async function confirm(db: Db, { id, email }: { id: string; email: string }): Promise<void> {
  const [found] = await db.select({ count: count() }).from(tasks).where(eq(tasks.userId, id))
  const typed = await ask(
    `This deletes ${printable(email)} and ${found!.count} tasks for good. Type the address to go on: `,
  )
  if (typed === undefined) throw new UsageError('--yes is needed without a terminal to ask at')
  if (normalizeEmail(typed) !== normalizeEmail(email)) throw new Error('nothing was deleted')
}

async function readNewPassword(): Promise<string> {
  const password = await readPassword()
  const problem = createCheck(t.Object({ password: newPassword }))({ password })
  if (problem) throw new UsageError(problem)
  return password
}

const hashPassword = ({ bcryptCost, hashing }: Config, password: string) =>
  createPasswords({ cost: bcryptCost, ...hashing }).hash(password)

async function changeUser(
  name: string,
  what: string,
  readChange: () => AccessChange | Promise<AccessChange>,
): Promise<void> {
  await withDatabase(async (db, { change }) => {
    const { id, email } = await findUser(db, name)
    const { sessions, apiTokens } = await change(id, await readChange())
    say(`${printable(email)} ${what}; ${sessions.length} sessions and ${apiTokens.length} API tokens ended`)
  })
}

const pageRows = 500
const order = orderKeys([users.createdAt, users.id], { isDescending: false })

/** All accounts, oldest first, read a page at a time. */
async function* accounts(db: Db) {
  const ofUser = sql`where user_id = ${users}.id`
  const lastUse = (table: typeof sessions | typeof apiTokens) =>
    sql`(select max(last_used_at) from ${table} ${ofUser})`
  const selected = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    disabled_at: users.disabledAt,
    tasks: sql<number>`(select count(*) from ${tasks} ${ofUser} and deleted_at is null)`,
    sessions: sql<number>`(select count(*) from ${sessions} ${ofUser} and expires_at > now())`,
    last_used_at: sql`greatest(${lastUse(sessions)}, ${lastUse(apiTokens)})`.mapWith(toInstant) as SQL<
      string | null
    >,
  }
  let after: SQL | undefined
  while (true) {
    const page = await db
      .select(selected)
      .from(users)
      .where(after)
      .orderBy(...order.map(({ by }) => by))
      .limit(pageRows)
    yield* page
    const last = page.at(-1)
    if (!last || page.length < pageRows) return
    after = afterCursor(order, [last.created_at, last.id])
  }
}
