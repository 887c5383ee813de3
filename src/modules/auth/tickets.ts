import { and, eq, gt, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { tickets } from '../../db/tables.ts'
import type { Caller } from '../../http/require-user.ts'
import { deriveKey, hmac } from '../../lib/derive-key.ts'
import { AppError } from '../../lib/errors.ts'
import { formatUuid, uuidBytes } from '../../lib/uuid.ts'
import type { Ticket } from './model.ts'
import { isSurplus } from './surplus.ts'
import type { Tokens } from './tokens.ts'

const idBytes = 16
const secretBytes = 32
const lifetimeSeconds = 60
/** Of more that a user has not used the oldest go. */
const ticketsMax = 100

interface Parts {
  db: Db
  tokens: Tokens
  secretKey: string
}

export type Tickets = ReturnType<typeof createTickets>

/**
 * One-time tickets for addresses that a browser opens without a header. A ticket is the user's id and 256 random bits, in
 * base64url. It is exchanged for an access token of the session that asked for it, which never leaves the process: so
 * what a ticket opens ends with the session, as for any token. With another key it is as unknown as the session's tokens.
 */
export function createTickets({ db, tokens, secretKey }: Parts) {
  const key = deriveKey(secretKey, 'tickets')
  const digest = (issued: string) => hmac(key, issued).toString('hex')

  /** The user whom a ticket names, and the condition for its row. */
  function read(issued: string) {
    const bytes = Buffer.from(issued, 'base64url')
    if (bytes.length !== idBytes + secretBytes) throw new AppError('invalid_token')
    const userId = formatUuid(bytes.subarray(0, idBytes))
    const isOwn = eq(tickets.userId, userId)
    return { userId, isIt: and(isOwn, eq(tickets.hash, digest(issued)), gt(tickets.expiresAt, sql`now()`)) }
  }

  return {
    async issue({ id: userId, sessionId }: Caller): Promise<Ticket> {
      const secret = crypto.getRandomValues(new Uint8Array(secretBytes))
      const issued = Buffer.concat([uuidBytes(userId), secret]).toString('base64url')
      const expiresAt = sql`now() + make_interval(secs => ${lifetimeSeconds})`
      const hash = digest(issued)
      await db.insert(tickets).values({ userId, sessionId, hash, expiresAt })
      await db.delete(tickets).where(isSurplus(db, 'tickets', userId, hash, ticketsMax))
      return { ticket: issued, expires_in: lifetimeSeconds }
    },

    /** The access token that a ticket stands for. Throws `invalid_token` when it was used, has expired or is not ours. */
    async tokenOf(issued: string): Promise<string> {
      const { userId, isIt } = read(issued)
      const [found] = await db.select({ sessionId: tickets.sessionId }).from(tickets).where(isIt)
      if (!found) throw new AppError('invalid_token')
      return tokens.sign(userId, found.sessionId)
    },

    /** Uses a ticket up. Throws as `tokenOf` does: of those who use it at once, one can. */
    async use(issued: string): Promise<void> {
      const used = await db.delete(tickets).where(read(issued).isIt).returning({ hash: tickets.hash })
      if (used.length === 0) throw new AppError('invalid_token')
    },
  }
}
