import { sql } from 'drizzle-orm'
import { bigint, check, pgTable, primaryKey, text, uniqueIndex, uuid } from 'drizzle-orm/pg-core'
import { jsonFunction } from '../../db/json-column.ts'
import { belongsTo, bytewiseText, instant, userVersions } from '../../db/tables.ts'

/** What the API returns of a list, in this order. */
const jsonColumns = ['id', 'name', 'position', 'created_at', 'updated_at', 'version']

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
    /** The list as it is sent, as of tasks. */
    json: text('json')
      .notNull()
      .generatedAlwaysAs(sql.raw(`list_json(${jsonColumns.join(', ')})`)),
  },
  lists => [
    primaryKey({ name: 'lists_pkey', columns: [lists.id, lists.userId] }),
    belongsTo(userVersions.userId, 'lists_user_fk', lists.userId),
    check('lists_name_length', sql`char_length(${lists.name}) between 1 and 100`),
    check('lists_name_not_blank', sql`ltrim(${lists.name}, E' \\t\\n\\v\\f\\r') <> ''`),
    check('lists_position_length', sql`char_length(${lists.position}) <= 255`),
    // A user has at most 500 lists: this index finds them, too, and they are sorted.
    uniqueIndex('lists_feed').on(lists.userId, lists.version),
  ],
)

export const listJson = jsonFunction('list_json', lists, jsonColumns)

export const listsRequireNewVersion = `CREATE TRIGGER "lists_require_new_version" AFTER UPDATE ON "lists" FOR EACH ROW WHEN (NEW.version <= OLD.version)
  EXECUTE FUNCTION "require_new_version"();`
