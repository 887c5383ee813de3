import { sql } from 'drizzle-orm'
import type { Db } from '../db/drizzle.ts'
import { userVersions } from '../db/tables.ts'
import { nilUuid } from '../lib/uuid.ts'
import { lists } from '../modules/lists/table.ts'
import { tasks } from '../modules/tasks/table.ts'
import { withDatabase } from './open-database.ts'
import { patiently } from './patiently.ts'
import { createProgress } from './terminal.ts'

const usersAtOnce = 100
/** A writer, or another user of the embedded database, then waits at most a tenth of a second. */
const rowsAtOnce = 200

/**
 * Where a user's versions go on: at the microseconds since 1970, which is beyond every version so far, also after an
 * earlier restore of the same backup; and far ahead whatever the clock says.
 */
const farAhead = sql`greatest(v.last_version + 4294967296, (extract(epoch from now()) * 1000000)::bigint)`

/**
 * `todo-api reset-sync`: for a database that has lost changes (restored with PostgreSQL's tools, or a standby that was
 * promoted without the last ones). The service may run meanwhile.
 */
export async function resetSyncCommand(): Promise<void> {
  await withDatabase(async db => {
    using progress = createProgress()
    const { users, rows } = await resetSync(db, progress.add)
    progress.say(
      `the clients of ${users} users will sync from the beginning; ${rows} tasks and lists have new versions`,
    )
  })
}

/**
 * Makes every cursor and entity tag of before invalid: clients may hold some of changes that are lost, and since the loss
 * the service may have used a lost version for other content. Every user's last version moves far ahead, all changes before
 * are forgotten, and every row has a version from after. `onRows` is called with how many more rows are done.
 */
export async function resetSync(db: Db, onRows: (count: number) => void) {
  const done = { users: 0, rows: 0 }
  let page: { id: string }[] = []
  do {
    page = await patiently(() => skipVersions(db, page.at(-1)?.id ?? nilUuid))
    done.users += page.length
    for (const { id } of page) {
      for (const table of [lists, tasks]) done.rows += await renumber(db, table, id, onRows)
    }
  } while (page.length === usersAtOnce)
  return done
}

/** Moves the last versions of the users after `last` far ahead. */
function skipVersions(db: Db, last: string) {
  return db.execute<{ id: string }>(sql`
    with page as (
      select user_id from ${userVersions} where user_id > ${last}::uuid order by user_id limit ${usersAtOnce}
      for no key update
    ), moved as (
      update ${userVersions} v set last_version = ${farAhead}, forgotten_version = ${farAhead}
      from page where v.user_id = page.user_id returning v.user_id as id
    )
    select id from moved order by id`)
}

/** Moves the rows of a user to versions after that, in small steps, each as of a writer; returns how many. */
async function renumber(
  db: Db,
  table: typeof tasks | typeof lists,
  user: string,
  onRows: (count: number) => void,
): Promise<number> {
  const step = sql`
    with versions as materialized (
      select last_version, forgotten_version from ${userVersions} where user_id = ${user}::uuid for no key update
    ), old as (
      select t.id, row_number() over (order by t.version) as place from ${table} t, versions v
      where t.user_id = ${user}::uuid and t.version <= v.forgotten_version order by t.version limit ${rowsAtOnce}
    ), moved as (
      update ${userVersions} set last_version = last_version + (select count(*) from old) where user_id = ${user}::uuid
    ), written as (
      update ${table} t set version = v.last_version + old.place from old, versions v
      where t.id = old.id and t.user_id = ${user}::uuid
    )
    select count(*) from old`
  let total = 0
  for (let count = rowsAtOnce; count === rowsAtOnce; total += count) {
    const [row] = await patiently(() => db.execute<{ count: number }>(step))
    count = row!.count
    onRows(count)
  }
  return total
}
