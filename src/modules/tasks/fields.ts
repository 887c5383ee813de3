import { Kind, type Static, type TOptional, type TSchema } from '@sinclair/typebox'
import {
  arrayOverlaps,
  type Column,
  eq,
  gt,
  inArray,
  isNull,
  lt,
  or,
  type SQL,
  type SQLWrapper,
  sql,
} from 'drizzle-orm'
import {
  bigint,
  type PgColumnBuilderBase,
  smallint,
  text as textColumn,
  uuid as uuidColumn,
} from 'drizzle-orm/pg-core'
import { t } from 'elysia'
import { bytewiseText, instant as instantColumn } from '../../db/tables.ts'
import {
  instant,
  instantInput,
  integer,
  nullable,
  oneOf,
  stringList,
  text,
  uuid,
  uuidInput,
} from '../../http/schema.ts'
import { parseInstant } from '../../lib/instant.ts'
import { tokenize } from './search.ts'

/**
 * A field of a task, said once: the table, the JSON that the database keeps, the schemas, the lists and the OpenAPI
 * document come from these entries. A new one is an entry here and the migration that `bun run db:generate` writes.
 */
interface Field {
  /** Its column. A new task has its default, or null, if the client sends nothing. */
  column: PgColumnBuilderBase
  /** What the database refuses, by the end of the rule's name: `tasks_title_length`. */
  rules?: Record<string, (column: string) => string>
  /** What the API returns. */
  output: TSchema
  /** For the OpenAPI document. */
  example: unknown
  /** What a client may send. Without it, the server sets the field. */
  input?: TSchema
  /** Whether a client must send it for a new task. */
  isRequired?: true
  /** The columns that a value sets, if not just the one with the value itself. */
  toColumns?: (value: never) => Record<string, unknown>
  /** Lists can be sorted by this expression. It must not be null: cursors compare with it. */
  sortBy?: (column: SQLWrapper) => SQL
  /** The query parameters that filter lists by it. */
  filters?: Record<string, Filter>
}

/** A query parameter of the list and its condition; `undefined` matches every task. */
interface Filter {
  schema: TOptional<TSchema>
  where: (column: Column, value: never) => SQL | undefined
}

const filter = <Schema extends TSchema>(
  schema: Schema,
  where: (column: Column, value: Static<Schema>) => SQL | undefined,
) => ({ schema: t.Optional(schema), where })

// Without examples: the Swagger page would send them.
const moment = (compare: typeof lt, description: string) =>
  filter(text({ format: 'date-time', description }), (column, value) => compare(column, parseInstant(value)))

const idOrNone = /^(none|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$/

/** Rows whose reference is one of these ids; `none` are those without one. */
const ofThese = (description: string) =>
  filter(
    stringList({ maxItems: 20, pattern: idOrNone, wanted: 'an id, or none', description }),
    (column, wanted) => {
      const ids = wanted.filter(id => id !== 'none')
      return or(
        ids.length > 0 ? inArray(column, ids) : undefined,
        ids.length < wanted.length ? isNull(column) : undefined,
      )
    },
  )

const itself = (column: SQLWrapper) => sql`${column}`
/** The same on every database, whatever its locale. */
const bytewise = (column: SQLWrapper) => sql`${column} collate "C"`

export const taskStatuses = ['pending', 'in_progress', 'completed'] as const

const priorities = '0 none, 1 low, 2 medium, 3 high, 4 urgent'

const tag = text({
  minLength: 1,
  maxLength: 50,
  notBlank: true,
  pattern: /^\P{Cc}*$/u,
  wanted: 'without control characters',
  examples: ['home'],
})

export const fields = {
  id: {
    column: uuidColumn('id').notNull(),
    output: uuid(),
    example: '019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11',
  },
  user_id: {
    column: uuidColumn('user_id').notNull(),
    output: uuid(),
    example: '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e',
  },
  title: {
    column: textColumn('title').notNull(),
    rules: {
      length: column => `char_length(${column}) between 1 and 200`,
      // ASCII spaces alone: the request's schema knows the others, and this rule must never be stricter than that one.
      // `\x0b`, because PostgreSQL 15 reads `\v` as the letter.
      not_blank: column => String.raw`ltrim(${column}, E' \t\n\x0b\f\r') <> ''`,
    },
    output: t.String({ examples: ['Buy milk'] }),
    example: 'Buy milk',
    input: text({ minLength: 1, maxLength: 200, notBlank: true, examples: ['Buy milk'] }),
    isRequired: true,
    toColumns: (title: string) => ({ title, title_words: tokenize(title) }),
    sortBy: bytewise,
  },
  description: {
    column: textColumn('description'),
    rules: { length: column => `char_length(${column}) <= 2000` },
    output: nullable(t.String({ examples: ['Two litres, the blue one'] })),
    example: 'Two litres, the blue one',
    input: nullable(text({ maxLength: 2000, examples: ['Two litres, the blue one'] })),
    toColumns: (description: string | null) => ({
      description,
      description_words: tokenize(description ?? ''),
    }),
  },
  status: {
    column: textColumn('status', { enum: taskStatuses }).notNull().default('pending'),
    rules: { known: column => `${column} in ('pending', 'in_progress', 'completed')` },
    output: oneOf(taskStatuses),
    example: 'pending',
    input: oneOf(taskStatuses, { examples: ['in_progress'] }),
    // Its three values sort the same in every collation.
    sortBy: itself,
    filters: {
      status: filter(
        t.Array(oneOf(taskStatuses), {
          maxItems: 3,
          description: 'Only these; may be given more than once.',
        }),
        (column, statuses) => (statuses.length > 0 ? inArray(column, statuses) : undefined),
      ),
    },
  },
  priority: {
    column: smallint('priority').notNull().default(0),
    rules: { range: column => `${column} between 0 and 4` },
    output: integer({ description: priorities, examples: [2] }),
    example: 2,
    input: integer({ minimum: 0, maximum: 4, description: priorities, examples: [2] }),
    sortBy: itself,
    filters: { priority: filter(t.Integer({ minimum: 0, maximum: 4 }), eq) },
  },
  due_at: {
    column: instantColumn('due_at'),
    rules: {
      // What RFC 3339 can write; infinity is neither before nor after it.
      range: column => `${column} >= '0001-01-01 00:00:00+00' and ${column} < '10000-01-01 00:00:00+00'`,
    },
    output: nullable(instant()),
    example: '2099-01-31T18:00:00.000000Z',
    input: nullable(instantInput({ description: 'Any offset in, UTC out.' })),
    toColumns: (due: string | null) => ({ due_at: due && parseInstant(due) }),
    // No date is after all dates.
    sortBy: column => sql`coalesce(${column}, 'infinity')`,
    filters: {
      due_before: moment(lt, 'Due earlier than this.'),
      due_after: moment(gt, 'Due later than this.'),
    },
  },
  tags: {
    column: textColumn('tags').array().notNull().default([]),
    rules: {
      count: column => `cardinality(${column}) <= 20`,
      // No nulls, no empty tags, and a bound on all of them together. That each has at most 50 characters and is not
      // blank is for the request's schema alone: SQL cannot look at the items of an array without a function.
      items: column =>
        `array_position(${column}, null) is null and array_position(${column}, '') is null and char_length(array_to_string(${column}, '')) <= 1000`,
    },
    output: t.Array(t.String(), { examples: [['home', 'errands']] }),
    example: ['home', 'errands'],
    input: t.Array(tag, {
      maxItems: 20,
      description: 'The whole list; a tag that comes twice counts once.',
      examples: [['home', 'errands']],
    }),
    toColumns: (tags: string[]) => ({ tags: [...new Set(tags)] }),
    filters: {
      tag: filter(
        stringList({
          maxItems: 20,
          maxLength: 50,
          notBlank: true,
          description: 'With this tag; given more than once: with any of them.',
        }),
        (column, tags) => (tags.length > 0 ? arrayOverlaps(column, tags) : undefined),
      ),
    },
  },
  list_id: {
    column: uuidColumn('list_id'),
    output: nullable(uuid({ description: 'The list that the task is in; null is the inbox.' })),
    example: null,
    input: nullable(uuidInput({ description: 'One of your lists; null is the inbox.' })),
    // An idempotency key knows its body by these.
    toColumns: (id: string | null) => ({ list_id: id?.toLowerCase() ?? null }),
    filters: {
      list: ofThese('In this list, `none` for the inbox; given more than once: in any of them.'),
    },
  },
  parent_id: {
    column: uuidColumn('parent_id'),
    output: nullable(uuid({ description: 'The task that this one is a part of.' })),
    example: null,
    input: nullable(uuidInput({ description: 'The task that it is a part of, which has no parent itself.' })),
    // An idempotency key knows its body by these.
    toColumns: (id: string | null) => ({ parent_id: id?.toLowerCase() ?? null }),
    filters: {
      parent: ofThese(
        'The parts of this task, `none` for tasks without a parent; may be given more than once.',
      ),
    },
  },
  position: {
    column: bytewiseText('position').notNull().default(''),
    rules: { length: column => `char_length(${column}) <= 255` },
    output: t.String({ description: 'Where a user put the task: compared as text.', examples: ['a0'] }),
    example: 'a0',
    input: text({
      maxLength: 255,
      description: 'Where the task stands in an order of your own; compared byte by byte. `a0` < `a1` < `b`.',
      examples: ['a0'],
    }),
    sortBy: itself,
  },
  completed_at: {
    column: instantColumn('completed_at'),
    output: nullable(instant({ description: 'When `status` became `completed`; the server keeps it.' })),
    example: null,
  },
  created_at: {
    column: instantColumn('created_at').notNull().default(sql`now()`),
    output: instant(),
    example: '2026-11-23T05:46:14.120000Z',
    sortBy: itself,
    filters: {
      created_before: moment(lt, 'Created earlier than this.'),
      created_after: moment(gt, 'Created later than this.'),
    },
  },
  updated_at: {
    column: instantColumn('updated_at').notNull().default(sql`now()`),
    output: instant(),
    example: '2026-11-23T05:46:14.120000Z',
    sortBy: itself,
    filters: { updated_after: moment(gt, 'Changed later than this.') },
  },
  version: {
    // That of the change that made the row what it is.
    column: bigint('version', { mode: 'number' }).notNull(),
    output: integer({
      format: 'int64',
      description: 'Grows with each change of any of your tasks, so not from 1 for each; also in the `ETag`.',
      examples: [7],
    }),
    example: 1,
  },
} as const satisfies Record<string, Field>

type Fields = typeof fields
export type FieldName = keyof Fields
/** The fields that have this part. */
type NamesWith<Part extends keyof Field> = {
  [Name in FieldName]: Part extends keyof Fields[Name] ? Name : never
}[FieldName]

export type InputName = NamesWith<'input'>
export type SortName = NamesWith<'sortBy'>

/** The entries that have this part, each with its name. */
export const fieldsWith = <Part extends keyof Field>(part: Part) =>
  Object.entries(fields as Record<string, Field>).filter(
    (entry): entry is [string, Field & Required<Pick<Field, Part>>] => entry[1][part] !== undefined,
  )

/** One part of every field that has it, by the field's name. */
function collect<Part extends keyof Field>(part: Part) {
  const parts = Object.fromEntries(fieldsWith(part).map(([name, field]) => [name, field[part]]))
  return parts as unknown as { [Name in NamesWith<Part>]: Fields[Name][Part & keyof Fields[Name]] }
}

export const outputs = collect('output')
export const examples = collect('example')

/** The schemas of a new task. */
export const inputs = Object.fromEntries(
  fieldsWith('input').map(([name, { input, isRequired }]) => [name, isRequired ? input : t.Optional(input)]),
) as {
  [Name in InputName]: Fields[Name] extends { isRequired: true }
    ? Fields[Name]['input']
    : TOptional<Fields[Name]['input']>
}

type Filters = Extract<Fields[FieldName], { filters: unknown }>['filters']
type FilterName<Each = Filters> = Each extends unknown ? keyof Each : never
type FilterSchema<Name, Each = Filters> =
  Each extends Record<Name & string, { schema: infer Schema }> ? Schema : never

/** The query parameters that filter lists, each with its field. */
export const filters = fieldsWith('filters').flatMap(([field, { filters }]) =>
  Object.entries(filters).map(([name, filter]) => ({ name, field, ...filter })),
)
export const filterSchemas = Object.fromEntries(filters.map(({ name, schema }) => [name, schema])) as {
  [Name in FilterName]: FilterSchema<Name>
}

/** The parameters that are moments, and those that may be given more than once. */
export const momentFilters = filters.filter(({ schema }) => schema.format === 'date-time')
export const listFilters = filters.filter(({ schema }) => schema[Kind] === 'StringList')
