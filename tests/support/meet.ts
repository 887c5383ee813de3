import { afterAll, beforeAll } from 'bun:test'
import postgres from 'postgres'
import { type Service, startService } from './harness.ts'
import { type PrivateDatabase, privateDatabase } from './template.ts'
import { until } from './until.ts'

type Lock = (sql: postgres.TransactionSql) => Promise<unknown>

/**
 * Races that are made to happen: a second session holds a lock, each call begins as soon as the one before it waits
 * for that lock, and when all of them wait the lock is released. `url` leads to the server itself, past any proxy.
 */
export function createMeeting(url: string) {
  const sql = postgres(url, { max: 3, onnotice: () => {}, fetch_types: false })

  /** The backends of this database that wait for a lock. */
  async function waiting(): Promise<number[]> {
    const rows = await sql<{ pid: number }[]>`
      select pid from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock' order by query_start`
    return rows.map(({ pid }) => pid)
  }

  const isWaiting = async () => (await waiting()).length > 0

  return {
    sql,
    waiting,

    /** Until one waits for a lock. */
    untilWaiting: () => until(isWaiting),

    /** Until one has waited, and has given up. */
    async untilGivenUp() {
      await until(isWaiting)
      await until(async () => !(await isWaiting()))
    },

    /** Starts the calls while `lock` is held; `meanwhile` runs when all of them wait. Returns their answers. */
    async meet<T>(lock: Lock, calls: (() => Promise<T>)[], meanwhile?: () => Promise<unknown>): Promise<T[]> {
      const begun: Promise<T>[] = []
      await sql.begin(async tx => {
        await lock(tx)
        for (const call of calls) {
          begun.push(call())
          await until(async () => (await waiting()).length >= begun.length, 1.5)
        }
        await meanwhile?.()
      })
      return Promise.all(begun)
    },

    close: () => sql.end({ timeout: 1 }),
  }
}

export type Meeting = ReturnType<typeof createMeeting>

/**
 * For a file or a `describe`: a service with meetings on its database, there before the tests and gone after them. On
 * PostgreSQL alone: the embedded database runs one statement or transaction after the other.
 */
export function serviceWithMeetings() {
  const api = {} as Service
  const meeting = {} as Meeting
  const db = {} as PrivateDatabase
  beforeAll(async () => {
    Object.assign(db, await privateDatabase())
    // One user may have a quarter of the connections for transactions: enough for five that meet.
    Object.assign(api, await startService('postgres', { DATABASE_URL: db.url, DATABASE_POOL_SIZE: '20' }))
    Object.assign(meeting, createMeeting(db.directUrl))
  }, 60_000)
  afterAll(async () => {
    await meeting.close?.()
    await api.stop?.()
    await db.drop?.()
  })
  return { api, db, meeting }
}

/** What every write of a user's tasks waits for. */
export const versionsOf =
  (user: { id: string }): Lock =>
  sql =>
    sql`select 1 from user_versions where user_id = ${user.id} for update`

/** One task, which a write reaches after the counter. */
export const rowOf =
  (task: { id: string }): Lock =>
  sql =>
    sql`select 1 from tasks where id = ${task.id} for update`
