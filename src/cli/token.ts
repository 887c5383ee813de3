import { and, eq } from 'drizzle-orm'
import { t } from 'elysia'
import { apiTokens, users } from '../db/tables.ts'
import { sha256 } from '../lib/sha256.ts'
import { isUuid } from '../lib/uuid.ts'
import { type ApiTokenInput, inDays, isUnexpired } from '../modules/auth/api-tokens.ts'
import { apiTokenCreate } from '../modules/auth/model.ts'
import { createCheck } from './check-schema.ts'
import { findUser } from './find-user.ts'
import { withDatabase } from './open-database.ts'
import { minuteOf, print, printable, printRows, readSecret, say, UsageError } from './terminal.ts'

interface CreateOptions {
  name?: string
  scopes?: string
  expires?: string
}

/** Makes an API token for a user, and prints it. */
export async function createToken(userName: string, options: CreateOptions): Promise<void> {
  const input = readInput(options)
  await withDatabase(async (db, { createToken }) => {
    const user = await findUser(db, userName)
    const made = await createToken(user.id, input)
    if (!made) throw new Error(`${printable(user.email)} is disabled`)
    await print(`${made.token}\n`)
    say(`created API token ${made.id} for ${printable(user.email)}; it expires ${dayOf(made.expires_at)}`)
  })
}

/** Prints the API tokens of a user, or of all: a table at a terminal, one line of JSON each elsewhere or with `json`. */
export async function listTokens(
  userName: string,
  { json = !process.stdout.isTTY }: { json?: boolean },
): Promise<void> {
  await withDatabase(async db => {
    const user = userName === '' ? undefined : await findUser(db, userName)
    const tokens = await db
      .select({
        id: apiTokens.id,
        user: users.email,
        name: apiTokens.name,
        scopes: apiTokens.scopes,
        prefix: apiTokens.prefix,
        created_at: apiTokens.createdAt,
        last_used_at: apiTokens.lastUsedAt,
        expires_at: apiTokens.expiresAt,
      })
      .from(apiTokens)
      .innerJoin(users, eq(users.id, apiTokens.userId))
      .where(and(user && eq(apiTokens.userId, user.id), isUnexpired))
      .orderBy(apiTokens.id)
    await printRows(json, tokens, {
      ID: token => token.id,
      USER: token => printable(token.user),
      NAME: token => printable(token.name),
      SCOPES: token => token.scopes.join(','),
      'BEGINS WITH': token => token.prefix,
      'LAST USED': token => minuteOf(token.last_used_at),
      EXPIRES: token => dayOf(token.expires_at),
    })
  })
}

/** Ends the API token with an id, or the one that is typed or piped in for `-`. */
export async function revokeToken(id: string): Promise<void> {
  if (id !== '-' && !isUuid(id))
    throw new UsageError('the id of a token is needed, or -; `token list` shows ids')
  const secret = id === '-' ? (await readSecret('Token: ')).trim() : undefined
  const which = secret === undefined ? eq(apiTokens.id, id) : eq(apiTokens.tokenHash, sha256(secret))
  await withDatabase(async db => {
    const [ended] = await db
      .delete(apiTokens)
      .where(which)
      .returning({ id: apiTokens.id, name: apiTokens.name })
    if (!ended) throw new Error('there is no such API token')
    say(`revoked API token ${ended.id} (${printable(ended.name)})`)
  })
}

const checkInput = createCheck(t.Omit(apiTokenCreate, ['current_password']))

/** The options as the API would take them. Throws `UsageError`. */
function readInput({ name, scopes, expires }: CreateOptions): ApiTokenInput {
  const given = {
    name,
    scopes: scopes?.split(',').map(scope => scope.trim()),
    ...(expires !== undefined && { expires_at: readExpiry(expires) }),
  }
  const problem = checkInput(given)
  if (problem) throw new UsageError(`the options are wrong: ${problem}`)
  return given as ApiTokenInput
}

/** `never`, or `90d` as a moment; anything else as it is. */
function readExpiry(text: string): string | null {
  if (text === 'never') return null
  const [, days] = /^(\d{1,4})d$/.exec(text) ?? []
  return days === undefined ? text : inDays(Number(days))
}

const dayOf = (moment: string | null) => moment?.slice(0, 10) ?? 'never'
