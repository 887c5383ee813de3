import { asc, type Column, count, desc, type SQL, sql } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import type { Db } from './drizzle.ts'
import { typeOf, userVersions } from './tables.ts'

/** Rows of a page, unless the request says how many. */
export const pageSizeDefault = 50

/** One page of a list. */
export interface Page {
  /** The JSON of its rows, with commas between them. */
  items: string
  /** The cursor of the next page; `undefined` on the last one. */
  next: string | undefined
  /** Only when it was asked for. */
  total?: number | undefined
  /** The user's last version when the page was read; `undefined` when more than the user's changes decides about it. */
  version?: number | undefined
}

/** The row in which the database returns a page. */
export type PageRow = {
  /** The JSON of the rows, and of the first one of the next page, with commas between them. */
  items: string | null
  /** A JSON array: what the last row of the page is sorted by. */
  last: string
  /** The first row of the next page. */
  next_id: string | null
  /** With `lastVersionOf`; null when the account is gone. */
  last_version?: number | null
}

/** One key of an ORDER BY. */
export interface OrderKey {
  by: SQL
  /** The type of its values in a cursor. */
  type: string
  isDescending: boolean
}

/** These columns as the keys of an order, all in one direction. */
export const orderKeys = (columns: Column[], { isDescending }: Pick<OrderKey, 'isDescending'>): OrderKey[] =>
  columns.map(column => ({ by: sql`${column}`, type: typeOf(column), isDescending }))

/** What differs between the statements of pages. */
interface QueryShape {
  /** A row is sent as its `json`, which begins with its id. */
  from: PgTable & Record<'id' | 'json', Column>
  where: SQL
  /** The last key is the id. */
  order: OrderKey[]
  /** How many rows a page has. */
  pageSize: SQL
  /** How many rows are read: one more, which tells whether there is a next page. Hot pages say it in their own way. */
  limit?: SQL
  offset?: number
  /** A row as JSON, if more than its `json`. */
  item?: SQL | undefined
  /** The user whose last version is read in the same snapshot. */
  lastVersionOf?: SQL
}

/** The last version that a user's changes have taken, as a part of a statement. */
const lastVersionOf = (userId: SQL) =>
  sql<number>`(select last_version from ${userVersions} where user_id = ${userId})`

/**
 * The statement of a page, whose answer is one row (`PageRow`): joining the JSON of the rows is less work for all than
 * taking 50 rows apart. The row too many is cut off by `readPage`: a filter by `row_number()` costs the server a third
 * more. Raw SQL, because the builder has no words for elements of an aggregate.
 */
export function page({
  from,
  where,
  order,
  pageSize,
  limit = sql`${pageSize} + 1`,
  offset,
  item = sql`${from.json}`,
  lastVersionOf: user,
}: QueryShape): SQL {
  const keys = order.slice(0, -1).map(({ by }, i) => ({ by, name: sql.identifier(`key_${i}`) }))
  keys.push({ by: sql`${from.id}`, name: sql.identifier('id') })
  const list = (parts: SQL[]) => sql.join(parts, sql`, `)
  const orderBy = order.map(({ by, isDescending }) => (isDescending ? desc(by) : asc(by)))
  return sql`
    select string_agg(item, ',') as items,
           json_build_array(${list(keys.map(({ name }) => sql`(array_agg(${name}))[${pageSize}]`))})::text as last,
           (array_agg(id))[${pageSize} + 1] as next_id${user && sql`, ${lastVersionOf(user)} as last_version`}
    from (
      select ${item} as item, ${list(keys.map(({ by, name }) => sql`${by} as ${name}`))}
      from ${from} where ${where} order by ${list(orderBy)}
      limit ${limit}${offset ? sql` offset ${offset}` : undefined}
    ) page`
}

/** Counts a user's rows beside the statement of a page, and reads the user's last version at that moment. */
export const countRows = (db: Db, from: PgTable, where: SQL, userId: string) =>
  db
    .select({ total: count(), lastVersion: lastVersionOf(sql`${userId}::uuid`) })
    .from(from)
    .where(where)

/** The page that a statement reads, with the total if that was asked for. `sign` makes the cursor of the next page. */
export async function readPage(
  rows: PromiseLike<PageRow[]>,
  sign: (last: string) => string,
  counted?: ReturnType<typeof countRows>,
): Promise<Page> {
  const [[row], [all] = []] = await Promise.all([rows, counted])
  const { items, last, next_id, last_version } = row!
  const version = last_version ?? undefined
  const rest = {
    total: all?.total,
    // The count is another statement, which may have seen another change.
    version: !all || all.lastVersion === version ? version : undefined,
  }
  if (items === null || next_id === null) return { items: items ?? '', next: undefined, ...rest }
  // Each row begins with its id, and quotes within a text are escaped: this stands nowhere else.
  return { items: items.slice(0, items.lastIndexOf(`,{"id":"${next_id}"`)), next: sign(last), ...rest }
}

/**
 * The condition for the rows after a cursor, which has the values of the last row of the page before. If every key sorts the
 * same way, a row comparison `(a, b) > (x, y)`, which an index serves as a range. Otherwise
 * `a >= x and (a > x or (a = x and b < y) …)`.
 */
export function afterCursor(order: OrderKey[], cursor: unknown[] | undefined): SQL | undefined {
  if (!cursor) return undefined
  const values = order.map(({ type }, i) => sql`${cursor[i]}::${sql.raw(type)}`)
  const beyond = order.map(({ isDescending }) => sql.raw(isDescending ? '<' : '>'))
  const by = order.map(key => key.by)
  if (order.every(({ isDescending }) => isDescending === order[0]!.isDescending)) {
    return sql`(${sql.join(by, sql`, `)}) ${beyond[0]} (${sql.join(values, sql`, `)})`
  }
  const steps = by.map((key, i) => {
    const equal = by.slice(0, i).map((before, j) => sql`${before} = ${values[j]}`)
    return sql`(${sql.join([...equal, sql`${key} ${beyond[i]} ${values[i]}`], sql` and `)})`
  })
  return sql`${by[0]} ${beyond[0]}= ${values[0]} and (${sql.join(steps, sql` or `)})`
}
