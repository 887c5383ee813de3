import { and, eq, isNull, placeholder, type SQL, sql } from 'drizzle-orm'
import { byShape, type Db, statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks, taskTombstones } from '../../db/schema.ts'
import {
  columns,
  columnsOf,
  completedAt,
  fieldValue,
  insertColumns,
  insertValues,
  noColumns,
  type TaskRow,
  value,
} from './rows.ts'

const user = value('user', 'uuid')
const id = value('id', 'uuid')

/** The versions that the caller will accept as text, null for any. */
const ifMatch = value('ifMatch', 'text[]')
const isWanted = (version: SQL) => sql`(${ifMatch} is null or ${version} = any (${ifMatch}::bigint[]))`

/** `moved`: another version than the caller wants. `absent`: gone while we waited. `same`: nothing to change. */
export type Outcome = 'written' | 'same' | 'moved' | 'absent'

/**
 * What is done to one task, each operation one statement in four steps (docs/decisions/0005-change-sequence.md):
 *
 *   seen     looks at the task as it was when the statement began
 *   bump     takes the next number of the person's sequence; that locks the counter and waits for other writers
 *   written  writes, and tests everything again on the newest row
 *   select   says what happened
 *
 * The counter always before the task, so that two writers never wait for each other. What `seen` read may be old by
 * the time `written` runs: values to write come only from the request and the row itself (`t`).
 */
export function createStatements(db: Db, driver: Driver) {
  const changeOf = byShape((fields: string[]) =>
    statement<[Outcome, ...TaskRow]>(driver, changeQuery(fields)),
  )

  return {
    read: statement<TaskRow>(
      driver,
      db
        .select(Object.fromEntries(columns.map(column => [column.name, column])))
        .from(tasks)
        .where(
          and(
            eq(tasks.id, placeholder('id')),
            eq(tasks.userId, placeholder('user')),
            isNull(tasks.deletedAt),
          ),
        ),
    ),

    /** No row: there is no such person any more. */
    insert: statement<TaskRow>(
      driver,
      sql`
      with bump as (
        update ${taskCounters} set seq = seq + 1 where user_id = ${user} returning seq
      )
      insert into ${tasks} as t (${insertColumns})
      select ${id}, ${user}, ${insertValues(fieldValue)}, bump.seq from bump
      returning ${columnsOf('t')}`,
    ),

    /**
     * The same with an id that the caller may have used before: `prior` is the task that was made then, wherever it
     * is now; `gone` when it was deleted for good. Two at once: one breaks the primary key, and must be run again.
     */
    insertOnce: statement<['made' | 'prior' | 'gone', ...TaskRow]>(
      driver,
      sql`
      with prior as (
        select * from ${tasks} where id = ${id} and user_id = ${user}
      ), gone as (
        select 1 from ${taskTombstones} where id = ${id} and user_id = ${user}
      ), bump as (
        update ${taskCounters} set seq = seq + 1
        where user_id = ${user} and not exists (select from prior) and not exists (select from gone)
        returning seq
      ), made as (
        insert into ${tasks} as t (${insertColumns})
        select ${id}, ${user}, ${insertValues(fieldValue)}, bump.seq from bump
        returning ${columnsOf('t')}
      )
      select 'made', ${columnsOf('made')} from made
      union all select 'prior', ${columnsOf('prior')} from prior
      union all select 'gone', ${noColumns} from gone`,
    ),

    /** Changes the columns of `patch` and no others: a statement for each set of columns. */
    change(patch: object, task: { id: string; user: string; ifMatch: string[] | null }) {
      const fields = Object.keys(patch)
      return changeOf(fields, fields.join())({ ...task, ...patch })
    },

    trash: statement<[Outcome, ...TaskRow]>(driver, intoOrOutOfTrash('into')),
    restore: statement<[Outcome, ...TaskRow]>(driver, intoOrOutOfTrash('out of')),

    /** For good, from the list or from the trash. */
    erase: statement<[Outcome]>(
      driver,
      sql`
      with seen as (
        select id, version from ${tasks} where id = ${id} and user_id = ${user}
      ), bump as (
        update ${taskCounters} c set seq = c.seq + 1 from seen
        where c.user_id = ${user} and ${isWanted(sql`seen.version`)}
        returning c.seq
      ), gone as (
        delete from ${tasks} t using bump
        where t.id = ${id} and t.user_id = ${user} and ${isWanted(sql`t.version`)}
        returning t.id, t.user_id, bump.seq as version
      ), stone as (
        insert into ${taskTombstones} (id, user_id, version, deleted_at)
        select id, user_id, version, now() from gone
      )
      select 'written' from gone
      union all
      select case when ${ifMatch} is not null then 'moved' else 'absent' end
      from seen where not exists (select from gone)`,
    ),

    /** The one query without a person: it decides between 403 and 404, and gives nothing else away. */
    owner: statement<[userId: string]>(
      driver,
      db
        .select({ userId: tasks.userId })
        .from(tasks)
        .where(eq(tasks.id, placeholder('id')))
        .limit(1),
    ),
  }
}

function changeQuery(fields: string[]): SQL {
  const given = fields.map(field => ({ column: sql.raw(field), value: fieldValue(field) }))
  const changes = given.map(({ column, value }) => sql`t.${column} is distinct from ${value}`)
  const assignments = given.map(({ column, value }) => sql`${column} = ${value},`)
  if (fields.includes('status')) assignments.push(sql`completed_at = ${completedAt(fieldValue('status'))},`)
  return sql`
    with seen as (
      select ${columnsOf('t')}, ${changes.length > 0 ? sql.join(changes, sql` or `) : sql`false`} as changes
      from ${tasks} t where t.id = ${id} and t.user_id = ${user} and t.deleted_at is null
    ), bump as (
      update ${taskCounters} c set seq = c.seq + 1 from seen
      where c.user_id = ${user} and seen.changes and ${isWanted(sql`seen.version`)}
      returning c.seq
    ), written as (
      update ${tasks} t set ${sql.join(assignments, sql` `)} updated_at = now(), version = bump.seq from bump
      where t.id = ${id} and t.user_id = ${user} and t.deleted_at is null and ${isWanted(sql`t.version`)}
      returning ${columnsOf('t')}
    )
    select 'written', ${columnsOf('written')} from written
    union all
    select case when ${ifMatch} is not null and (not ${isWanted(sql`seen.version`)} or exists (select from bump)) then 'moved'
                when exists (select from bump) then 'absent' else 'same' end, ${columnsOf('seen')}
    from seen where not exists (select from written)`
}

function intoOrOutOfTrash(way: 'into' | 'out of'): SQL {
  const isThere = way === 'into' ? sql`deleted_at is null` : sql`deleted_at is not null`
  const moves = way === 'into' ? sql`deleted_at = now()` : sql`deleted_at = null, updated_at = now()`
  return sql`
    with seen as (
      select id, version from ${tasks} where id = ${id} and user_id = ${user} and ${isThere}
    ), bump as (
      update ${taskCounters} c set seq = c.seq + 1 from seen
      where c.user_id = ${user} and ${isWanted(sql`seen.version`)}
      returning c.seq
    ), written as (
      update ${tasks} t set ${moves}, version = bump.seq from bump
      where t.id = ${id} and t.user_id = ${user} and t.${isThere} and ${isWanted(sql`t.version`)}
      returning ${columnsOf('t')}
    )
    select 'written', ${columnsOf('written')} from written
    union all
    select case when ${ifMatch} is not null then 'moved' else 'absent' end, ${noColumns}
    from seen where not exists (select from written)`
}
