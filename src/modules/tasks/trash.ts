import { type SQL, sql } from 'drizzle-orm'
import { statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks, taskTombstones, toInstant } from '../../db/schema.ts'
import { type Cursors, wrongCursor } from './cursor.ts'
import type { Page } from './list.ts'
import type { TrashedTask, TrashQuery } from './model.ts'
import { toTask, value } from './rows.ts'

/** Days that a task stays in the trash before it goes for good. */
export const trashDays = 30
/** Days that a deletion is remembered; a cursor of `/tasks/changes` that is older may be too old. */
export const tombstoneDays = 90

/** Rows at a time: nobody waits long for the locks, nor for the embedded database. */
const emptyAtOnce = 100
const purgeAtOnce = 200

/** Any number that nobody else locks. Whoever holds it purges; the lock ends with the statement. */
const turnKey = sql.raw('7263540119')

const user = value('user', 'uuid')
const limit = value('limit', 'int')
const days = sql`make_interval(days => ${value('days', 'int')})`

const trashQuery = (condition: SQL) => sql`
  select t.deleted_at, t.json from ${tasks} t
  where t.user_id = ${user} and t.deleted_at is not null ${condition}
  order by t.deleted_at desc, t.id desc limit ${limit}`

export function createTrash(driver: Driver, cursors: Cursors) {
  type TrashRow = [deletedAt: string, json: string]
  const firstPage = statement<TrashRow>(driver, trashQuery(sql``))
  const nextPage = statement<TrashRow>(
    driver,
    trashQuery(
      sql`and (t.deleted_at, t.id) < (${value('deletedAt', 'timestamptz')}, ${value('id', 'uuid')})`,
    ),
  )

  // The counter first, as everywhere. No number is taken: for the feed these tasks were gone before, and they keep the
  // number with which they left the list.
  const emptySome = statement<[count: number]>(
    driver,
    sql`
    with person as materialized (
      select user_id from ${taskCounters} where user_id = ${user} for no key update
    ), old as (
      select t.id from ${tasks} t, person
      where t.user_id = ${user} and t.deleted_at is not null order by t.deleted_at limit ${limit}
    ), gone as (
      delete from ${tasks} t using old
      where t.id = old.id and t.user_id = ${user} and t.deleted_at is not null
      returning t.id, t.user_id, t.version, t.deleted_at
    ), stones as (
      insert into ${taskTombstones} (id, user_id, version, deleted_at)
      select id, user_id, version, deleted_at from gone returning 1
    )
    select count(*) from stones`,
  )

  const purgeSome = statement<[count: number]>(
    driver,
    sql`
    with turn as materialized (
      select pg_try_advisory_xact_lock(${turnKey}) as mine
    ), old as (
      select id, user_id from ${tasks}
      where deleted_at is not null and deleted_at < now() - ${days} and (select mine from turn)
      order by deleted_at limit ${limit} for update skip locked
    ), gone as (
      delete from ${tasks} t using old where t.id = old.id and t.user_id = old.user_id
      returning t.id, t.user_id, t.version, t.deleted_at
    ), stones as (
      insert into ${taskTombstones} (id, user_id, version, deleted_at)
      select id, user_id, version, deleted_at from gone returning 1
    )
    select count(*) from stones`,
  )

  /** Forgets old deletions, and notes in the same statement how far: cursors from before that are too old. */
  const forgetSome = statement<[count: number]>(
    driver,
    sql`
    with turn as materialized (
      select pg_try_advisory_xact_lock(${turnKey}) as mine
    ), old as (
      select id, user_id from ${taskTombstones}
      where deleted_at < now() - ${days} and (select mine from turn)
      order by deleted_at limit ${limit} for update skip locked
    ), gone as (
      delete from ${taskTombstones} d using old where d.id = old.id and d.user_id = old.user_id
      returning d.user_id, d.version
    ), last as (
      select user_id, max(version) as version from gone group by user_id order by user_id
    ), mark as (
      update ${taskCounters} c set pruned_through = greatest(c.pruned_through, last.version)
      from last where c.user_id = last.user_id
    )
    select count(*) from gone`,
  )

  /** Runs a statement until it finds no more; gives how many rows it has found in all. */
  async function untilDone(
    run: (values: Record<string, unknown>) => Promise<[number][]>,
    values: { limit: number; [name: string]: unknown },
  ): Promise<number> {
    for (let total = 0; ; ) {
      const count = (await run(values))[0]![0]
      total += count
      if (count < values.limit) return total
    }
  }

  return {
    /** A page of the person's trash, what went there last first. Throws `validation_failed` for a wrong cursor. */
    async list(userId: string, { limit = 50, cursor }: TrashQuery): Promise<Page<TrashedTask>> {
      const page = { user: userId, limit: limit + 1 }
      const rows = await (cursor === undefined
        ? firstPage(page)
        : nextPage({ ...page, ...openCursor(userId, cursor) }))
      const items = rows.slice(0, limit).map(([deletedAt, json]) => ({
        ...toTask(json),
        deleted_at: toInstant(deletedAt),
      }))
      return { items, next: rows.length > limit ? sealCursor(userId, items.at(-1)!) : undefined }
    },

    /** Takes everything in the person's trash away for good. */
    async empty(userId: string): Promise<void> {
      await untilDone(emptySome, { user: userId, limit: emptyAtOnce })
    },

    /**
     * Takes away what was in the trash for 30 days, and forgets deletions after 90: everybody's, in small steps. Of
     * several replicas one works and the others find nothing to do. Gives the numbers of rows.
     */
    async purge(): Promise<{ purged: number; forgotten: number }> {
      const purged = await untilDone(purgeSome, { days: trashDays, limit: purgeAtOnce })
      const forgotten = await untilDone(forgetSome, { days: tombstoneDays, limit: purgeAtOnce })
      return { purged, forgotten }
    },
  }

  function sealCursor(userId: string, { deleted_at, id }: TrashedTask): string {
    return cursors.seal('trash', userId, `${deleted_at} ${id}`)
  }

  function openCursor(userId: string, cursor: string) {
    const content = cursors.open('trash', userId, cursor)
    if (content === undefined) throw wrongCursor('cursor')
    const [deletedAt, id] = content.split(' ')
    return { deletedAt, id }
  }
}
