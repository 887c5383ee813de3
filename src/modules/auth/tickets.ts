import { and, eq, gt, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { tickets } from '../../db/tables.ts'
import type { Caller } from '../../http/require-user.ts'
import { AppError } from '../../lib/errors.ts'
import { sha256 } from '../../lib/sha256.ts'
import { formatUuid } from '../../lib/uuid.ts'
import type { Ticket } from './model.ts'
import type { Tokens } from './tokens.ts'

const idBytes = 16
const secretBytes = 32
const lifetimeSeconds = 60

export type Tickets = ReturnType<typeof createTickets>

/**
 * One-time tickets for addresses that a browser opens without a header. A ticket is the user's id and 256 random bits, in
 * base64url. It is exchanged for an access token of the session that asked for it, which never leaves the process: so
 * what a ticket opens ends with the session, as for any token.
 */
export function createTickets({ db, tokens }: { db: Db; tokens: Tokens }) {
  return {
    async issue({ id: userId, sessionId }: Caller): Promise<Ticket> {
      const id = Buffer.from(userId.replaceAll('-', ''), 'hex')
      const secret = crypto.getRandomValues(new Uint8Array(secretBytes))
      const issued = Buffer.concat([id, secret]).toString('base64url')
      const expiresAt = sql`now() + make_interval(secs => ${lifetimeSeconds})`
      await db.insert(tickets).values({ userId, sessionId, hash: sha256(issued), expiresAt })
      return { ticket: issued, expires_in: lifetimeSeconds }
    },

    /** The access token that a ticket stands for. Throws `invalid_token` when it was used, has expired or is not ours. */
    async redeem(issued: string): Promise<string> {
      const bytes = Buffer.from(issued, 'base64url')
      if (bytes.length !== idBytes + secretBytes) throw new AppError('invalid_token')
      const userId = formatUuid(bytes.subarray(0, idBytes))
      const [used] = await db
        .delete(tickets)
        .where(
          and(
            eq(tickets.userId, userId),
            eq(tickets.hash, sha256(issued)),
            gt(tickets.expiresAt, sql`now()`),
          ),
        )
        .returning({ sessionId: tickets.sessionId })
      if (!used) throw new AppError('invalid_token')
      return tokens.sign(userId, used.sessionId)
    },
  }
}
