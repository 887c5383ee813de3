import { asc, count, eq, type SQL, sql } from 'drizzle-orm'
import { t } from 'elysia'
import type { Db } from '../db/drizzle.ts'
import { migrate } from '../db/migrator.ts'
import { apiTokens, sessions, users } from '../db/tables.ts'
import { email, newPassword, normalizeEmail } from '../modules/auth/model.ts'
import { createPasswords } from '../modules/auth/password-hash.ts'
import { eraseUser } from '../modules/tasks/erasure.ts'
import { tasks } from '../modules/tasks/table.ts'
import { readConfig } from './env.ts'
import { findUser } from './find-user.ts'
import { openDatabase, withDatabase } from './open-database.ts'
import { ask, print, printable, readPassword, say, table, UsageError } from './terminal.ts'
import { createLoader } from './transfer/bulk-insert.ts'
import { createCheck } from './transfer/check-schema.ts'

/** Prints every account: a table at a terminal, one line of JSON each elsewhere or with `json`. */
export async function listUsers(
  _: string,
  { json = !process.stdout.isTTY }: { json?: boolean },
): Promise<void> {
  await withDatabase(async db => {
    const rows: Account[] = []
    for await (const page of accounts(db)) {
      if (json) await print(page.map(account => `${JSON.stringify(account)}\n`).join(''))
      else rows.push(...page)
    }
    if (!json) await print(table([head, ...rows.map(toCells)]))
  })
}

/** Creates an account. The password comes from stdin or is typed without an echo. */
export async function createUser(address: string): Promise<void> {
  const problem = createCheck(t.Object({ email }))({ email: address })
  if (problem) throw new UsageError(problem)
  const config = readConfig()
  const password = await readNewPassword()
  const driver = await openDatabase(config)
  try {
    await migrate(driver)
    const { hash } = createPasswords({ cost: config.bcryptCost, ...config.hashing })
    const trimmed = address.trim()
    const now = new Date().toISOString()
    const columns = {
      id: Bun.randomUUIDv7(),
      email: trimmed,
      normalized_email: normalizeEmail(trimmed),
      password_hash: await hash(password),
      created_at: now,
      updated_at: now,
    }
    const loader = createLoader(driver, (_, reason) => {
      throw new Error(reason)
    })
    await loader.add([{ table: 'user', columns, label: trimmed }])
    await print(`${columns.id}\n`)
    say(`created user ${printable(trimmed)}`)
  } finally {
    await driver.close()
  }
}

/** Sets a new password and ends the sessions and API tokens of the account. */
export async function resetPassword(name: string): Promise<void> {
  const config = readConfig()
  await withDatabase(async db => {
    const user = await findUser(db, name)
    const password = await readNewPassword()
    const { hash } = createPasswords({ cost: config.bcryptCost, ...config.hashing })
    await change(db, user, { passwordHash: await hash(password) }, 'has a new password')
  })
}

/** Refuses sign-ins to the account and ends its sessions and API tokens. Its data stays. */
export async function disableUser(name: string): Promise<void> {
  await withDatabase(async db => {
    const user = await findUser(db, name)
    await change(db, user, { disabledAt: sql`coalesce(${users.disabledAt}, now())` }, 'is disabled')
  })
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
  await withDatabase(async (db, { erase = id => eraseUser(db, id) }) => {
    const user = await findUser(db, name)
    if (!yes) await confirm(db, user)
    await db.delete(users).where(eq(users.id, user.id))
    await erase(user.id)
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

type Change = { passwordHash: string } | { disabledAt: SQL }

/**
 * Changes an account, then ends its sessions and API tokens: a sign-in after the change meets the new state, and what is
 * from before it is deleted by the statements that follow. Triggers tell running services.
 */
async function change(db: Db, { id, email }: { id: string; email: string }, to: Change, what: string) {
  await db
    .update(users)
    .set({ ...to, updatedAt: sql`now()` })
    .where(eq(users.id, id))
  const ended = await db.delete(sessions).where(eq(sessions.userId, id)).returning({ id: sessions.id })
  const tokens = await db.delete(apiTokens).where(eq(apiTokens.userId, id)).returning({ id: apiTokens.id })
  say(`${printable(email)} ${what}; ${ended.length} sessions and ${tokens.length} API tokens ended`)
}

const pageRows = 500

/** All accounts, oldest first, a page at a time. */
async function* accounts(db: Db) {
  const live = sql<number>`(select count(*) from ${tasks} t where t.user_id = ${users}.id and t.deleted_at is null)`
  const signedIn = sql<number>`(select count(*) from ${sessions} s where s.user_id = ${users}.id and s.expires_at > now())`
  const lastUsed = sql<
    string | null
  >`(select max(s.last_used_at) from ${sessions} s where s.user_id = ${users}.id)`
  let after: Account | undefined
  do {
    const page: Account[] = await db
      .select({
        id: users.id,
        email: users.email,
        created_at: users.createdAt,
        disabled_at: users.disabledAt,
        tasks: live,
        sessions: signedIn,
        last_used_at: lastUsed.mapWith(sessions.lastUsedAt),
      })
      .from(users)
      .where(
        after &&
          sql`(${users.createdAt}, ${users.id}) > (${after.created_at}::timestamptz, ${after.id}::uuid)`,
      )
      .orderBy(asc(users.createdAt), asc(users.id))
      .limit(pageRows)
    yield page
    after = page.length === pageRows ? page.at(-1) : undefined
  } while (after)
}

interface Account {
  id: string
  email: string
  created_at: string
  disabled_at: string | null
  tasks: number
  sessions: number
  last_used_at: string | null
}

const head = ['ID', 'E-MAIL', 'CREATED', 'TASKS', 'SESSIONS', 'LAST USED', 'DISABLED']

const toCells = (account: Account): string[] => [
  account.id,
  printable(account.email),
  account.created_at.slice(0, 10),
  String(account.tasks),
  String(account.sessions),
  account.last_used_at?.slice(0, 16).replace('T', ' ') ?? 'never',
  account.disabled_at?.slice(0, 10) ?? '',
]
