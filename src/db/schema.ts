import { sql } from 'drizzle-orm'
import {
  bigint,
  check,
  customType,
  foreignKey,
  index,
  integer,
  pgTable,
  primaryKey,
  smallint,
  text,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core'

/**
 * A moment: `timestamptz` in the database, RFC 3339 in UTC with microseconds in the program and on the wire.
 * Text on both sides, because a JavaScript Date knows no microseconds and costs four times as much.
 */
export const instant = customType<{ data: string; driverData: string }>({
  dataType: () => 'timestamp with time zone',
  fromDriver: toInstant,
})

/** PostgreSQL's `2026-11-23 05:46:14.12+00` (session time zone UTC) as `2026-11-23T05:46:14.120000Z`. */
export function toInstant(value: string): string {
  // Nearly all of them, and a page has fifty.
  if (value.length === 29) return `${value.slice(0, 10)}T${value.slice(11, 26)}Z`
  const fraction = value.slice(20, -3)
  return `${value.slice(0, 10)}T${value.slice(11, 19)}.${fraction.padEnd(6, '0')}Z`
}

/** Text whose order is that of its bytes: the same on every database, whatever its locale. */
const plainText = customType<{ data: string }>({ dataType: () => 'text COLLATE "C"' })

const now = sql`now()`

export const users = pgTable(
  'users',
  {
    id: uuid('id').primaryKey(),
    /** As the person wrote it. */
    email: text('email').notNull(),
    /** The same address as it is compared: one account per address, whatever the case. */
    emailKey: text('email_key').notNull(),
    passwordHash: text('password_hash').notNull(),
    /** Since when the account may not be used; its sessions have ended then. */
    disabledAt: instant('disabled_at'),
    createdAt: instant('created_at').notNull().default(now),
    updatedAt: instant('updated_at').notNull().default(now),
  },
  users => [
    unique('users_email_key_unique').on(users.emailKey),
    check('users_email_length', sql`char_length(${users.email}) between 3 and 254`),
  ],
)

/** One sign-in of one person. It ends when its row goes; access and refresh tokens name it. */
export const sessions = pgTable(
  'sessions',
  {
    id: uuid('id').primaryKey(),
    userId: uuid('user_id').notNull(),
    /** SHA-256 of the refresh token in force, hex. The token itself is never stored. */
    tokenHash: text('token_hash').notNull(),
    /** SHA-256 of the token before it, which is taken for a few seconds more. */
    previousHash: text('previous_hash'),
    rotatedAt: instant('rotated_at').notNull().default(now),
    createdAt: instant('created_at').notNull().default(now),
    lastUsedAt: instant('last_used_at').notNull().default(now),
    expiresAt: instant('expires_at').notNull(),
    userAgent: text('user_agent'),
    ip: text('ip'),
  },
  sessions => [
    foreignKey({ name: 'sessions_user_fk', columns: [sessions.userId], foreignColumns: [users.id] }).onDelete(
      'cascade',
    ),
    index('sessions_user').on(sessions.userId),
    index('sessions_expiry').on(sessions.expiresAt),
  ],
)

/**
 * Sessions that ended a moment ago, written by a trigger on `sessions` whatever the reason. Every replica reads it
 * several times a second, so that a token that it remembers stops working (modules/auth/remembered-tokens.ts).
 */
export const sessionEnds = pgTable(
  'session_ends',
  {
    sessionId: uuid('session_id').notNull(),
    endedAt: instant('ended_at').notNull(),
  },
  ends => [index('session_ends_ended_at').on(ends.endedAt)],
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
 * One row a person: the number of that person's last change. Whoever writes a task takes the next number here first,
 * which locks the row: so numbers are committed in order and a reader of the changes never misses a late one.
 */
export const taskCounters = pgTable(
  'task_counters',
  {
    userId: uuid('user_id').primaryKey(),
    seq: bigint('seq', { mode: 'number' }).notNull().default(0),
    /** Deletions up to this number are forgotten; a cursor before it is too old. */
    prunedThrough: bigint('pruned_through', { mode: 'number' }).notNull().default(0),
  },
  counters => [
    foreignKey({
      name: 'task_counters_user_fk',
      columns: [counters.userId],
      foreignColumns: [users.id],
    }).onDelete('cascade'),
  ],
)

const taskJsonOf =
  'id, user_id, title, description, status, priority, due_at, tags, position, completed_at, created_at, updated_at, version'

/** Live tasks and those in the trash (`deleted_at`). */
export const tasks = pgTable(
  'tasks',
  {
    id: uuid('id').notNull(),
    userId: uuid('user_id').notNull(),
    title: text('title').notNull(),
    description: text('description'),
    status: text('status', { enum: ['pending', 'in_progress', 'completed'] })
      .notNull()
      .default('pending'),
    priority: smallint('priority').notNull().default(0),
    dueAt: instant('due_at'),
    tags: text('tags').array().notNull().default(sql`'{}'`),
    position: plainText('position').notNull().default(''),
    /** What a search looks at: the words of both texts as `modules/tasks/words.ts` folds them. */
    titleWords: plainText('title_words').notNull().default(''),
    descriptionWords: plainText('description_words').notNull().default(''),
    completedAt: instant('completed_at'),
    createdAt: instant('created_at').notNull().default(now),
    updatedAt: instant('updated_at').notNull().default(now),
    /** The number of the change that made the row what it is. */
    version: bigint('version', { mode: 'number' }).notNull(),
    deletedAt: instant('deleted_at'),
    /** The task as it is sent: made once, when it is written, and not at each reading (the function is in a migration). */
    json: text('json')
      .notNull()
      .generatedAlwaysAs(sql.raw(`task_json(${taskJsonOf})`)),
  },
  tasks => [
    // The person is part of the key, so that the table can be split by person over several servers.
    primaryKey({ name: 'tasks_pkey', columns: [tasks.id, tasks.userId] }),
    foreignKey({
      name: 'tasks_user_fk',
      columns: [tasks.userId],
      foreignColumns: [taskCounters.userId],
    }).onDelete('cascade'),
    check('tasks_title_length', sql`char_length(${tasks.title}) between 1 and 200`),
    // In the locale "C" only ASCII counts as space: never stricter than the check at the door, whatever the server.
    check('tasks_title_not_blank', sql`${tasks.title} collate "C" ~ '\\S'`),
    check('tasks_description_length', sql`char_length(${tasks.description}) <= 2000`),
    check('tasks_status_known', sql`${tasks.status} in ('pending', 'in_progress', 'completed')`),
    check('tasks_priority_range', sql`${tasks.priority} between 0 and 4`),
    check('tasks_position_length', sql`char_length(${tasks.position}) <= 255`),
    check('tasks_tags_count', sql`cardinality(${tasks.tags}) <= 20`),
    // One tag a line (none holds a line break): no line may be blank or longer than 50.
    check(
      'tasks_tags_items',
      sql`cardinality(${tasks.tags}) = 0 or (array_position(${tasks.tags}, null) is null and array_to_string(${tasks.tags}, chr(10)) collate "C" !~ '(?n)^\\s*$|.{51}')`,
    ),
    // What RFC 3339 can write; infinity is neither before nor after it.
    check(
      'tasks_due_at_range',
      sql`${tasks.dueAt} >= '0001-01-01 00:00:00+00' and ${tasks.dueAt} < '10000-01-01 00:00:00+00'`,
    ),
    check(
      'tasks_completed_at_matches',
      sql`(${tasks.status} = 'completed') = (${tasks.completedAt} is not null)`,
    ),
    // The change feed, and the rule that no two rows share a number.
    uniqueIndex('tasks_feed').on(tasks.userId, tasks.version),
    // The default order and its cursor. Plain ascending columns here and below: PostgreSQL reads an index backwards as
    // fast, and `.desc()` would mean NULLS LAST, which no ORDER BY of ours asks for.
    // With the date, so that a list can be walked for what is due without a look at the tasks.
    index('tasks_created')
      .on(tasks.userId, tasks.createdAt, tasks.id, tasks.dueAt)
      .where(sql`${tasks.deletedAt} is null`),
    // One status, sorted by status, and the counts.
    index('tasks_status')
      .on(tasks.userId, tasks.status, tasks.createdAt, tasks.id)
      .where(sql`${tasks.deletedAt} is null`),
    // What is still to be done: few tasks of a person who has completed thousands. With the date, so that what is
    // overdue can be picked and counted without a look at the tasks.
    index('tasks_open')
      .on(tasks.userId, tasks.createdAt, tasks.id, tasks.dueAt)
      .where(sql`${tasks.deletedAt} is null and ${tasks.status} <> 'completed'`),
    // One priority.
    index('tasks_priority')
      .on(tasks.userId, tasks.priority, tasks.createdAt, tasks.id)
      .where(sql`${tasks.deletedAt} is null`),
    // What is due when. Without a date is after all dates, so that a cursor need not know of nulls. With what the
    // newest of many can be found by without a look at the tasks, here and in `tasks_updated`.
    index('tasks_due')
      .on(tasks.userId, sql`coalesce(${tasks.dueAt}, 'infinity')`, tasks.id, tasks.createdAt, tasks.dueAt)
      .where(sql`${tasks.deletedAt} is null`),
    // A tag, however rare. The keys hold the person, so that a search in it meets nobody else's tasks; the function
    // stands in the migration. Without a list of pending entries: each write pays for itself.
    index('tasks_tags')
      .using('gin', sql`task_tag_keys(${tasks.userId}, ${tasks.tags})`)
      .with({ fastupdate: false })
      .where(sql`${tasks.deletedAt} is null and cardinality(${tasks.tags}) > 0`),
    // What changed lately.
    index('tasks_updated')
      .on(tasks.userId, tasks.updatedAt, tasks.id, tasks.createdAt)
      .where(sql`${tasks.deletedAt} is null`),
    // The trash of a person, and what has been there for so long that it goes.
    index('tasks_trash')
      .on(tasks.userId, tasks.deletedAt, tasks.id)
      .where(sql`${tasks.deletedAt} is not null`),
    index('tasks_purge').on(tasks.deletedAt).where(sql`${tasks.deletedAt} is not null`),
  ],
)

/** What is gone for good: kept a while, so that a client that was away learns of it. */
export const taskTombstones = pgTable(
  'task_tombstones',
  {
    id: uuid('id').notNull(),
    userId: uuid('user_id').notNull(),
    /** The number with which the task left the list. */
    version: bigint('version', { mode: 'number' }).notNull(),
    deletedAt: instant('deleted_at').notNull(),
  },
  stones => [
    primaryKey({ name: 'task_tombstones_pkey', columns: [stones.id, stones.userId] }),
    foreignKey({
      name: 'task_tombstones_user_fk',
      columns: [stones.userId],
      foreignColumns: [taskCounters.userId],
    }).onDelete('cascade'),
    uniqueIndex('task_tombstones_feed').on(stones.userId, stones.version),
    index('task_tombstones_age').on(stones.deletedAt),
  ],
)

/** One row for a person whose words are in `taskWords`. */
export const taskWordLists = pgTable(
  'task_word_lists',
  {
    userId: uuid('user_id').primaryKey(),
    /** The number of the last change that is in there; negative when the list begins anew. */
    through: bigint('through', { mode: 'number' }).notNull(),
  },
  lists => [
    foreignKey({
      name: 'task_word_lists_user_fk',
      columns: [lists.userId],
      foreignColumns: [taskCounters.userId],
    }).onDelete('cascade'),
  ],
)

/**
 * The words of the tasks of people who search long lists, in an index. Not kept by the writes but after a search, up to
 * some change (`taskWordLists`); what changed since then is read from the tasks (modules/tasks/search.ts). Without a
 * foreign key to the tasks, which would cost their deletion more than all else: whoever deletes them deletes these.
 */
export const taskWords = pgTable(
  'task_words',
  {
    userId: uuid('user_id').notNull(),
    id: uuid('id').notNull(),
    /** As in the task, which never changes it: the newest of many can be found without a look at the tasks. */
    createdAt: instant('created_at').notNull(),
    words: plainText('words').notNull(),
  },
  words => [
    primaryKey({ name: 'task_words_pkey', columns: [words.userId, words.id] }),
    foreignKey({
      name: 'task_words_list_fk',
      columns: [words.userId],
      foreignColumns: [taskWordLists.userId],
    }).onDelete('cascade'),
    // The keys hold the person, as those of `tasks_tags` do.
    index('task_words_keys')
      .using('gin', sql`task_word_keys(${words.userId}, ${words.words})`)
      .with({ fastupdate: false }),
  ],
)
