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
    /** As the user wrote it. */
    email: text('email').notNull(),
    /** The same address as it is compared: one account per address, whatever the case. */
    normalizedEmail: text('normalized_email').notNull(),
    passwordHash: text('password_hash').notNull(),
    /** Since when the account may not be used; its sessions have ended then. */
    disabledAt: instant('disabled_at'),
    createdAt: instant('created_at').notNull().default(now),
    updatedAt: instant('updated_at').notNull().default(now),
  },
  users => [
    unique('users_normalized_email_unique').on(users.normalizedEmail),
    check('users_email_length', sql`char_length(${users.email}) between 3 and 254`),
  ],
)

/** One sign-in of one user. It ends when its row goes; access and refresh tokens name it. */
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
 * several times a second, so that a token that it remembers stops working (modules/auth/token-cache.ts).
 */
export const sessionEnds = pgTable(
  'session_ends',
  {
    sessionId: uuid('session_id').notNull(),
    endedAt: instant('ended_at').notNull(),
  },
  ends => [index('session_ends_ended_at').on(ends.endedAt)],
)

/** Whatever ends a session (a sign-out, a deleted account, an operator with psql) leaves a note for every replica. */
export const sessionsEnded = `CREATE FUNCTION "note_session_ends"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "session_ends" ("session_id", "ended_at") SELECT "id", clock_timestamp() FROM "ended";
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "sessions_ended" AFTER DELETE ON "sessions" REFERENCING OLD TABLE AS "ended"
  FOR EACH STATEMENT EXECUTE FUNCTION "note_session_ends"();`

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
 * One row a user: the number of the user's last change. Every write of a task takes the next number here first, which
 * locks the row: so numbers are committed in order and a reader of the changes never misses a late one. Without a
 * foreign key to `users`: an account goes at once, and its tasks after it in steps (modules/tasks/erasure.ts).
 */
export const userVersions = pgTable('user_versions', {
  userId: uuid('user_id').primaryKey(),
  lastVersion: bigint('last_version', { mode: 'number' }).notNull().default(0),
  /** Deletions up to this number are forgotten; a cursor before it is too old. */
  forgottenVersion: bigint('forgotten_version', { mode: 'number' }).notNull().default(0),
})

/** Every change of a user's tasks rewrites this row. Half-empty pages let PostgreSQL do that in place. */
export const userVersionsFillfactor = 'ALTER TABLE "user_versions" SET (fillfactor = 50);'

/**
 * A task as JSON text, the way the API sends it. Declared IMMUTABLE, though PostgreSQL calls `to_json` and `to_char` only
 * STABLE: no setting of a session changes what they make of these types and formats. In PL/pgSQL, which keeps its
 * plans: a function in SQL starts an executor at each call.
 */
export const taskJson = `CREATE FUNCTION "task_json"(
  "id" uuid, "user_id" uuid, "title" text, "description" text, "status" text, "priority" smallint,
  "due_at" timestamp with time zone, "tags" text[], "position" text, "completed_at" timestamp with time zone,
  "created_at" timestamp with time zone, "updated_at" timestamp with time zone, "version" bigint
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\\""';
begin
  return '{"id":"' || id || '","user_id":"' || user_id
    || '","title":' || to_json(title)
    || ',"description":' || coalesce(to_json(description)::text, 'null')
    || ',"status":"' || status
    || '","priority":' || priority
    || ',"due_at":' || coalesce(to_char(due_at at time zone 'UTC', moment), 'null')
    || ',"tags":' || case when tags = '{}' then '[]' else array_to_json(tags)::text end
    || ',"position":' || to_json("position")
    || ',"completed_at":' || coalesce(to_char(completed_at at time zone 'UTC', moment), 'null')
    || ',"created_at":' || to_char(created_at at time zone 'UTC', moment)
    || ',"updated_at":' || to_char(updated_at at time zone 'UTC', moment)
    || ',"version":' || version || '}';
end $$;`

/** The call of it, with the columns in the order of its parameters. */
const jsonOfTask =
  'task_json(id, user_id, title, description, status, priority, due_at, tags, position, completed_at, created_at, updated_at, version)'

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
    /** The task as it is sent: made once, when it is written, and not at each reading. */
    json: text('json').notNull().generatedAlwaysAs(sql.raw(jsonOfTask)),
  },
  tasks => [
    // The user is part of the key, so that the table can be split by user over several servers.
    primaryKey({ name: 'tasks_pkey', columns: [tasks.id, tasks.userId] }),
    foreignKey({
      name: 'tasks_user_fk',
      columns: [tasks.userId],
      foreignColumns: [userVersions.userId],
    }).onDelete('cascade'),
    // Every write pays for these, so there is no regular expression among them.
    check('tasks_title_length', sql`char_length(${tasks.title}) between 1 and 200`),
    // ASCII spaces alone: the request's schema knows the others, and this rule must never be stricter than that one.
    check('tasks_title_not_blank', sql`ltrim(${tasks.title}, E' \\t\\n\\v\\f\\r') <> ''`),
    check('tasks_description_length', sql`char_length(${tasks.description}) <= 2000`),
    check('tasks_status_known', sql`${tasks.status} in ('pending', 'in_progress', 'completed')`),
    check('tasks_priority_range', sql`${tasks.priority} between 0 and 4`),
    check('tasks_position_length', sql`char_length(${tasks.position}) <= 255`),
    check('tasks_tags_count', sql`cardinality(${tasks.tags}) <= 20`),
    // No nulls, no empty tags, and a bound on all of them together. That each has at most 50 characters and is not
    // blank is for the request's schema alone: SQL cannot look at the items of an array without a function.
    check(
      'tasks_tags_items',
      sql`array_position(${tasks.tags}, null) is null and array_position(${tasks.tags}, '') is null and char_length(array_to_string(${tasks.tags}, '')) <= 1000`,
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
    // Each index costs every write, so there are three beside the key (docs/decisions/0006-lists.md). The list in its
    // order: what filters ask is looked at in passing. Ascending columns, because PostgreSQL reads an index backwards
    // as fast, and `.desc()` would mean NULLS LAST, which no ORDER BY of ours asks for.
    index('tasks_created').on(tasks.userId, tasks.createdAt, tasks.id).where(sql`${tasks.deletedAt} is null`),
    // The change feed, and the rule that no two rows share a number.
    uniqueIndex('tasks_feed').on(tasks.userId, tasks.version),
    // The trash of a user. The purge finds the users whose trash has old tasks by one pass over it.
    index('tasks_trash')
      .on(tasks.userId, tasks.deletedAt, tasks.id)
      .where(sql`${tasks.deletedAt} is not null`),
  ],
)

/**
 * Every change of a task takes a number, or clients that sync would never learn of it. This refuses an update that keeps
 * the number, whether a statement of ours makes it, psql or a foreign key. An AFTER trigger, because a BEFORE
 * trigger locks the row a second time and writes that to the log; its condition is all that a good update pays for.
 */
export const tasksRequireNewVersion = `CREATE FUNCTION "require_new_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an update of task % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "tasks_require_new_version" AFTER UPDATE ON "tasks" FOR EACH ROW WHEN (NEW.version <= OLD.version)
  EXECUTE FUNCTION "require_new_version"();`

/** Long texts stay as they are: to compress a row of more than 2 KB took longer than all else about writing it. */
export const tasksStorage = `ALTER TABLE "tasks"
  ALTER COLUMN "description" SET STORAGE EXTERNAL,
  ALTER COLUMN "title_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "description_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "json" SET STORAGE EXTERNAL;`

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
  tombstones => [
    primaryKey({ name: 'task_tombstones_pkey', columns: [tombstones.id, tombstones.userId] }),
    foreignKey({
      name: 'task_tombstones_user_fk',
      columns: [tombstones.userId],
      foreignColumns: [userVersions.userId],
    }).onDelete('cascade'),
    // Not unique: an imported deletion may carry a number that this database has given to another one.
    index('task_tombstones_feed').on(tombstones.userId, tombstones.version),
    index('task_tombstones_age').on(tombstones.deletedAt),
  ],
)

/**
 * What drizzle-kit cannot make from the tables above. Each text stands in a migration word for word, which
 * tests/migrate.test.ts holds: who changes one here writes the change into a new migration (`drizzle-kit generate --custom`).
 */
export const handwritten = [
  sessionsEnded,
  userVersionsFillfactor,
  taskJson,
  tasksRequireNewVersion,
  tasksStorage,
]
