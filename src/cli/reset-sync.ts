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
 * promoted without the last ones). Cursors and entity tags of clients may name lost changes, so all of them become
 * invalid. The service may run meanwhile.
 */
export async function resetSyncCommand(): Promise<void> {
  await withDatabase(async db => {
    using progress = createProgress()
    let moved = 0
    const users = await skipVersions(db, async user => {
      for (const table of [lists, tasks]) {
        for (let count = rowsAtOnce; count === rowsAtOnce; moved += count) {
          count = await patiently(() => renumber(db, table, user))
          progress.add(count)
        }
      }
    })
    progress.say(
      `the clients of ${users} users will sync from the beginning; ${moved} tasks and lists have new versions`,
    )
  })
}

/**
 * Moves every user's last version far ahead and forgets all changes before: older cursors are refused, and no version is
 * given twice. Returns the number of users; `onUser` is called for each of them.
 */
export async function skipVersions(db: Db, onUser?: (id: string) => Promise<void>): Promise<number> {
  let total = 0
  let page: { id: string }[] = []
  do {
    const last = page.at(-1)?.id ?? nilUuid
    const move = sql`
      with page as (
        select user_id from ${userVersions} where user_id > ${last}::uuid order by user_id limit ${usersAtOnce}
        for no key update
      ), moved as (
        update ${userVersions} v set last_version = ${farAhead}, forgotten_version = ${farAhead}
        from page where v.user_id = page.user_id returning v.user_id as id
      )
      select id from moved order by id`
    page = await patiently(() => db.execute<{ id: string }>(move))
    for (const { id } of page) await onUser?.(id)
    total += page.length
  } while (page.length === usersAtOnce)
  return total
}

/**
 * Writes versions from after `skipVersions` into rows of a user: since the loss the service may have used a lost version
 * for other content. A small step, as of a writer; returns how many tasks it has moved.
 */
async function renumber(db: Db, table: typeof tasks | typeof lists, user: string): Promise<number> {
  const [row] = await db.execute<{ count: number }>(sql`
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
    select count(*) from old`)
  return row!.count
}
