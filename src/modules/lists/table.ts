import { sql } from 'drizzle-orm'
import { bigint, pgTable, primaryKey, text, uniqueIndex, uuid } from 'drizzle-orm/pg-core'
import { belongsTo, bytewiseText, instant, userVersions } from '../../db/tables.ts'

/** Lists of tasks. Their versions are from the same sequence as those of the user's tasks. */
export const lists = pgTable(
  'lists',
  {
    id: uuid('id').notNull(),
    userId: uuid('user_id').notNull(),
    name: text('name').notNull(),
    position: bytewiseText('position').notNull().default(''),
    createdAt: instant('created_at').notNull().default(sql`now()`),
    updatedAt: instant('updated_at').notNull().default(sql`now()`),
    version: bigint('version', { mode: 'number' }).notNull(),
    /** Of a list that was created with an `Idempotency-Key`: a hash of what the request said. */
    requestHash: text('request_hash'),
    /** The list as it is sent: `listsJson` writes it. */
    json: text('json').notNull().default(''),
  },
  lists => [
    primaryKey({ name: 'lists_pkey', columns: [lists.id, lists.userId] }),
    belongsTo(userVersions.userId, 'lists_user_fk', lists.userId),
    // A user has at most 500 lists: this index finds them, too, and they are sorted.
    uniqueIndex('lists_feed').on(lists.userId, lists.version),
  ],
)
