import { sql } from 'drizzle-orm'
import { statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { tasks } from '../../db/schema.ts'
import { wrongParameter } from './cursor.ts'
import type { Stats } from './model.ts'
import { value } from './rows.ts'

const user = value('user', 'uuid')
const live = sql`select count(*) from ${tasks} where user_id = ${user} and deleted_at is null`
const isToday = sql`due_at >= ${value('from', 'timestamptz')} and due_at < ${value('to', 'timestamptz')}`

/** Each count is a range of an index alone. One `group by` over everything would read the tasks themselves. */
export const statsQuery = sql`
  select (${live} and status = 'pending'),
         (${live} and status = 'in_progress'),
         (${live} and status = 'completed'),
         open.overdue, open.today,
         (select count(*) from ${tasks} where user_id = ${user} and deleted_at is not null)
  from (
    select count(*) filter (where due_at < now()) as overdue, count(*) filter (where ${isToday}) as today
    from ${tasks} where user_id = ${user} and deleted_at is null and status <> 'completed'
  ) open`

export function createStats(driver: Driver) {
  const counts = statement<[number, number, number, number, number, number]>(driver, statsQuery)

  /** The counts of a person's tasks; "today" is the day in `tz`. Throws `validation_failed` for an unknown zone. */
  return async function stats(userId: string, tz = 'UTC'): Promise<Stats> {
    const [row] = await counts({ user: userId, ...today(tz) })
    const [pending, in_progress, completed, overdue, due_today, trash] = row!
    return {
      total: pending + in_progress + completed,
      pending,
      in_progress,
      completed,
      overdue,
      due_today,
      trash,
    }
  }
}

/** When the day begins and ends in a time zone. Computed here: every database brings other names of zones. */
function today(tz: string) {
  try {
    const start = Temporal.Now.zonedDateTimeISO(tz).startOfDay()
    const end = start.add({ days: 1 })
    return { from: start.toInstant().toString(), to: end.toInstant().toString() }
  } catch {
    throw wrongParameter('tz', 'timezone', 'Input should be a time zone such as Europe/Berlin')
  }
}
