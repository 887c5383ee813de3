import { placeholder, sql } from 'drizzle-orm'
import type { Driver } from '../db/driver.ts'
import { statement } from '../db/drizzle.ts'
import { tasks, userVersions } from '../db/tables.ts'
import { readConfig } from './env.ts'
import { openExisting } from './open-database.ts'
import { createProgress, say } from './terminal.ts'
import { patiently } from './transfer/bulk-insert.ts'

const usersAtOnce = 100
/** So few that a writer, or another user of the embedded database, waits a tenth of a second at most. */
const tasksAtOnce = 200

const firstId = '00000000-0000-0000-0000-000000000000'

const after = sql`${placeholder('after')}::uuid`
const user = sql`${placeholder('user')}::uuid`
const limit = sql`${placeholder('limit')}::int`

/**
 * Where a user's versions go on: at the microseconds since 1970, which is beyond all that was given out before, also
 * after an earlier restore of the same backup; and far ahead whatever the clock says.
 */
const farAhead = sql`greatest(c.last_version + 4294967296, (extract(epoch from now()) * 1000000)::bigint)`

/**
 * `todo-api reset-sync`: for a database that has lost changes (restored by tools of PostgreSQL, or a standby that was
 * promoted without the last ones). Cursors and entity tags that clients hold may name changes that are gone, so none
 * of them is accepted any more. The service may run meanwhile.
 */
export async function resetSyncCommand(): Promise<void> {
  const driver = await openExisting(readConfig())
  try {
    const users = await skipVersions(driver)
    const moved = await renumberTasks(driver)
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
  const move = statement<[id: string]>(
    driver,
    sql`
    with page as (
      select user_id from ${userVersions} where user_id > ${after} order by user_id limit ${limit} for no key update
    ), moved as (
      update ${userVersions} c set last_version = ${farAhead}, forgotten_version = ${farAhead}
      from page where c.user_id = page.user_id returning c.user_id
    )
    select user_id from moved order by user_id`,
  )
  let count = 0
  for (let last: string | undefined = firstId; last; ) {
    const moved = await patiently(() => move({ after: last, limit: usersAtOnce }))
    count += moved.length
    last = moved.at(-1)?.[0]
  }
  return count
}

/**
 * Gives every task a version from after `skipVersions`: between the loss and now the service may have given a lost version
 * to another content. In small steps, each of them what a writer does. Returns how many tasks there were.
 */
async function renumberTasks(driver: Driver): Promise<number> {
  const usersToDo = statement<[id: string]>(
    driver,
    sql`
    select c.user_id from ${userVersions} c
    where c.user_id > ${after}
      and exists (select from ${tasks} t where t.user_id = c.user_id and t.version <= c.forgotten_version)
    order by c.user_id limit ${limit}`,
  )
  const step = statement<[count: number]>(
    driver,
    sql`
    with versions as materialized (
      select user_id, last_version, forgotten_version from ${userVersions} where user_id = ${user} for no key update
    ), old as (
      select t.id, row_number() over (order by t.version) as place from ${tasks} t, versions c
      where t.user_id = ${user} and t.version <= c.forgotten_version order by t.version limit ${limit}
    ), moved as (
      update ${userVersions} c set last_version = c.last_version + (select count(*) from old) where c.user_id = ${user}
    ), written as (
      update ${tasks} t set version = c.last_version + old.place from old, versions c
      where t.id = old.id and t.user_id = ${user}
    )
    select count(*) from old`,
  )
  const progress = createProgress('tasks')
  let total = 0
  const renumber = async (id: string) => {
    while (true) {
      const [row] = await patiently(() => step({ user: id, limit: tasksAtOnce }))
      const count = row![0]
      total += count
      progress.add(count)
      if (count < tasksAtOnce) return
    }
  }
  for (let last: string | undefined = firstId; last; ) {
    const page = await patiently(() => usersToDo({ after: last, limit: usersAtOnce }))
    for (const [id] of page) await renumber(id)
    last = page.at(-1)?.[0]
  }
  progress.clear()
  return total
}
