import { sql } from 'drizzle-orm'
import type { Driver } from '../db/driver.ts'
import { createDb, type Db } from '../db/drizzle.ts'
import { tasks, userVersions } from '../db/tables.ts'
import { readConfig } from './env.ts'
import { openExisting } from './open-database.ts'
import { createProgress, say } from './terminal.ts'
import { patiently } from './transfer/bulk-insert.ts'

const usersAtOnce = 100
/** So few that a writer, or another user of the embedded database, waits a tenth of a second at most. */
const tasksAtOnce = 200

const firstId = '00000000-0000-0000-0000-000000000000'

/**
 * Where a user's versions go on: at the microseconds since 1970, which is beyond all that was given out before, also
 * after an earlier restore of the same backup; and far ahead whatever the clock says.
 */
const farAhead = sql`greatest(v.last_version + 4294967296, (extract(epoch from now()) * 1000000)::bigint)`

/**
 * `todo-api reset-sync`: for a database that has lost changes (restored by tools of PostgreSQL, or a standby that was
 * promoted without the last ones). Cursors and entity tags that clients hold may name changes that are gone, so none
 * of them is accepted any more. The service may run meanwhile.
 */
export async function resetSyncCommand(): Promise<void> {
  const driver = await openExisting(readConfig())
  try {
    const users = await skipVersions(driver)
    const moved = await renewVersions(driver)
    say(`the clients of ${users} users will sync from the beginning; ${moved} tasks have new versions`)
  } finally {
    await driver.close()
  }
}

/**
 * Moves every user's last version far ahead and forgets all changes before: a cursor from before is too old, and no version
 * is given out twice. Returns how many users there are.
 */
export async function skipVersions(driver: Driver): Promise<number> {
  const db = createDb(driver)
  let count = 0
  for (let last: string | undefined = firstId; last; ) {
    const moved = await patiently(() =>
      db.execute<{ user_id: string }>(sql`
        with page as (
          select user_id from ${userVersions} where user_id > ${last}::uuid
          order by user_id limit ${usersAtOnce} for no key update
        ), moved as (
          update ${userVersions} v set last_version = ${farAhead}, forgotten_version = ${farAhead}
          from page where v.user_id = page.user_id returning v.user_id
        )
        select user_id from moved order by user_id`),
    )
    count += moved.length
    last = moved.at(-1)?.user_id
  }
  return count
}

/**
 * Gives every task a version from after `skipVersions`: between the loss and now the service may have given a lost
 * version to another content. In small steps, each of them what a writer does. Returns how many tasks there were.
 */
async function renewVersions(driver: Driver): Promise<number> {
  const db = createDb(driver)
  const progress = createProgress('tasks')
  let total = 0
  for (let last: string | undefined = firstId; last; ) {
    const page = await patiently(() =>
      db.execute<{ user_id: string }>(sql`
        select v.user_id from ${userVersions} v
        where v.user_id > ${last}::uuid
          and exists (select from ${tasks} t where t.user_id = v.user_id and t.version <= v.forgotten_version)
        order by v.user_id limit ${usersAtOnce}`),
    )
    for (const { user_id } of page) {
      for (let count = tasksAtOnce; count === tasksAtOnce; ) {
        count = await patiently(() => renewSome(db, user_id))
        total += count
        progress.add(count)
      }
    }
    last = page.at(-1)?.user_id
  }
  progress.clear()
  return total
}

/** Renews the versions of at most `tasksAtOnce` tasks of a user, in their order. Returns how many there were. */
async function renewSome(db: Db, userId: string): Promise<number> {
  const [row] = await db.execute<{ count: number }>(sql`
    with versions as materialized (
      select user_id, last_version, forgotten_version from ${userVersions}
      where user_id = ${userId}::uuid for no key update
    ), old as (
      select t.id, row_number() over (order by t.version) as place from ${tasks} t, versions v
      where t.user_id = ${userId}::uuid and t.version <= v.forgotten_version order by t.version limit ${tasksAtOnce}
    ), moved as (
      update ${userVersions} v set last_version = v.last_version + (select count(*) from old)
      where v.user_id = ${userId}::uuid
    ), renewed as (
      update ${tasks} t set version = v.last_version + old.place from old, versions v
      where t.id = old.id and t.user_id = ${userId}::uuid
    )
    select count(*) from old`)
  return row!.count
}
