import { and, type Column, eq, sql } from 'drizzle-orm'
import {
  type AnyPgColumn,
  bigint,
  check,
  customType,
  foreignKey,
  index,
  integer,
  pgTable,
  primaryKey,
  text,
  unique,
  uuid,
} from 'drizzle-orm/pg-core'
import type { ErrorCode } from '../lib/errors.ts'
import type { TokenScope } from '../lib/scope.ts'
import type { UserId } from '../lib/user-id.ts'

/**
 * A moment: `timestamptz` in the database, RFC 3339 in UTC with microseconds in the program and in the API. Text in both,
 * because a JavaScript Date has no microseconds and costs four times as much.
 */
export const instant = customType<{ data: string; driverData: string }>({
  dataType: () => 'timestamp with time zone',
  fromDriver: toInstant,
})

/** PostgreSQL's `2026-11-23 05:46:14.12+00` (session time zone UTC) as `2026-11-23T05:46:14.120000Z`. */
export function toInstant(value: string): string {
  return `${value.slice(0, 10)}T${value.slice(11, 19)}.${value.slice(20, -3).padEnd(6, '0')}Z`
}

/** The type of a column, without a collation. */
export const typeOf = (column: Column): string => column.getSQLType().replace(/ COLLATE .*/, '')

/** Text whose order is that of its bytes: the same on every database, whatever its locale. */
export const bytewiseText = customType<{ data: string }>({ dataType: () => 'text COLLATE "C"' })

const now = sql`now()`

/** A foreign key: the row is deleted with the row of its owner. */
export const belongsTo = (owner: AnyPgColumn, name: string, column: AnyPgColumn) =>
  foreignKey({ name, columns: [column], foreignColumns: [owner] }).onDelete('cascade')

/** The condition for one row of a user. */
export const own = ({ id, userId }: Record<'id' | 'userId', Column>, owner: UserId, wanted: string) =>
  and(eq(id, wanted), eq(userId, owner))

export const users = pgTable(
  'users',
  {
    id: uuid('id').primaryKey(),
    /** As the user wrote it. */
    email: text('email').notNull(),
    /** The address for comparison: one account per address, whatever the case. */
    normalizedEmail: text('normalized_email').notNull(),
    passwordHash: text('password_hash').notNull(),
    /** Since when the account cannot be used; its sessions end at that moment. */
    disabledAt: instant('disabled_at'),
    createdAt: instant('created_at').notNull().default(now),
    updatedAt: instant('updated_at').notNull().default(now),
  },
  users => [
    unique('users_normalized_email_unique').on(users.normalizedEmail),
    check('users_email_length', sql`char_length(${users.email}) between 3 and 254`),
  ],
)

/** One sign-in of a user. It ends when its row is deleted; access and refresh tokens name it. */
export const sessions = pgTable(
  'sessions',
  {
    id: uuid('id').primaryKey(),
    userId: uuid('user_id').notNull(),
    /** SHA-256 of the refresh token in force, hex. The token itself is never stored. */
    tokenHash: text('token_hash').notNull(),
    /** SHA-256 of the token before it, which is valid for a few more seconds. */
    previousHash: text('previous_hash'),
    rotatedAt: instant('rotated_at').notNull().default(now),
    createdAt: instant('created_at').notNull().default(now),
    lastUsedAt: instant('last_used_at').notNull().default(now),
    expiresAt: instant('expires_at').notNull(),
    userAgent: text('user_agent'),
    ip: text('ip'),
  },
  sessions => [
    belongsTo(users.id, 'sessions_user_fk', sessions.userId),
    index('sessions_user').on(sessions.userId),
    index('sessions_expiry').on(sessions.expiresAt),
  ],
)

/** A key that a user makes for a program. It ends when its row is deleted. */
export const apiTokens = pgTable(
  'api_tokens',
  {
    userId: uuid('user_id').notNull(),
    id: uuid('id').notNull(),
    name: text('name').notNull(),
    scopes: text('scopes').array().$type<TokenScope[]>().notNull(),
    /** The beginning of the token, by which the user recognizes it. */
    prefix: text('prefix').notNull(),
    /** SHA-256 of the token, hex. The token itself is never stored. */
    tokenHash: text('token_hash').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    lastUsedAt: instant('last_used_at'),
    /** `null`: never. */
    expiresAt: instant('expires_at'),
  },
  tokens => [
    primaryKey({ name: 'api_tokens_pkey', columns: [tokens.userId, tokens.id] }),
    belongsTo(users.id, 'api_tokens_user_fk', tokens.userId),
    index('api_tokens_hash').on(tokens.tokenHash),
    index('api_tokens_expiry').on(tokens.expiresAt),
  ],
)

/**
 * Sessions and API tokens that ended recently, written by triggers on their tables. Every replica polls this table several
 * times a second, so that cached tokens stop working (modules/auth/token-cache.ts).
 */
export const sessionEnds = pgTable(
  'session_ends',
  {
    sessionId: uuid('session_id').notNull(),
    endedAt: instant('ended_at').notNull(),
  },
  ends => [index('session_ends_ended_at').on(ends.endedAt)],
)

/** One-time tickets, for what a browser opens without a header (modules/auth/tickets.ts). */
export const tickets = pgTable(
  'tickets',
  {
    userId: uuid('user_id').notNull(),
    /** HMAC-SHA-256 of the ticket, hex. The ticket itself is never stored. */
    hash: text('hash').notNull(),
    sessionId: uuid('session_id').notNull(),
    expiresAt: instant('expires_at').notNull(),
  },
  tickets => [
    primaryKey({ name: 'tickets_pkey', columns: [tickets.userId, tickets.hash] }),
    belongsTo(users.id, 'tickets_user_fk', tickets.userId),
  ],
)

/** Counters of the throttles that all replicas share; the columns are rate-limiter-flexible's. */
export const rateLimits = pgTable(
  'rate_limits',
  {
    key: text('key').primaryKey(),
    points: integer('points').notNull().default(0),
    /** Milliseconds since 1970. */
    expire: bigint('expire', { mode: 'number' }),
  },
  limits => [index('rate_limits_expire').on(limits.expire)],
)

/**
 * One row for each user: the version of the last change of the user's tasks. Every write of a task takes the next version
 * here first, which locks the row: so versions are committed in order, and a reader of the changes misses none. There is
 * no foreign key to `users`: an account is deleted at once, its tasks follow in steps (modules/tasks/erasure.ts).
 */
export const userVersions = pgTable('user_versions', {
  userId: uuid('user_id').primaryKey(),
  lastVersion: bigint('last_version', { mode: 'number' }).notNull().default(0),
  /** Deletions up to this version are forgotten; a cursor before it is too old. */
  forgottenVersion: bigint('forgotten_version', { mode: 'number' }).notNull().default(0),
})

/** Deletions, kept for a while so that clients learn of them. */
const tombstones = <Name extends string>(name: Name) =>
  pgTable(
    name,
    {
      id: uuid('id').notNull(),
      userId: uuid('user_id').notNull(),
      /** The version with which the row went. */
      version: bigint('version', { mode: 'number' }).notNull(),
      deletedAt: instant('deleted_at').notNull(),
    },
    tombstones => [
      primaryKey({ name: `${name}_pkey`, columns: [tombstones.id, tombstones.userId] }),
      belongsTo(userVersions.userId, `${name}_user_fk`, tombstones.userId),
      // Not unique: older databases may have imported deletions under a version that was used here.
      index(`${name}_feed`).on(tombstones.userId, tombstones.version),
      index(`${name}_age`).on(tombstones.deletedAt),
    ],
  )

/** Permanently deleted tasks, under the version with which each left the list. */
export const taskTombstones = tombstones('task_tombstones')

/** Deleted lists. */
export const listTombstones = tombstones('list_tombstones')

export type Tombstones = typeof taskTombstones | typeof listTombstones

/** Constraints that have an error of their own: the database decides, also when requests race. */
export const constraintErrors: Record<string, ErrorCode> = {
  users_normalized_email_unique: 'email_taken',
  // The account was deleted after the token was checked.
  tickets_user_fk: 'invalid_token',
}
