import { and, desc, eq, isNull, placeholder, type SQL, sql } from 'drizzle-orm'
import { type Db, statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks, taskTombstones, toInstant } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'
import { isUuid } from '../../uuid.ts'
import type { ListQuery, Task, TaskCreate, TaskUpdate } from './model.ts'

/** The columns that a person sees of a task, in the order of `toTask`; the person's own id is known. */
const columns = [
  tasks.id,
  tasks.title,
  tasks.description,
  tasks.status,
  tasks.priority,
  tasks.dueAt,
  tasks.tags,
  tasks.position,
  tasks.completedAt,
  tasks.createdAt,
  tasks.updatedAt,
  tasks.version,
] as const

type TaskRow = [
  id: string,
  title: string,
  description: string | null,
  status: Task['status'],
  priority: number,
  dueAt: string | null,
  tags: string[],
  position: string,
  completedAt: string | null,
  createdAt: string,
  updatedAt: string,
  version: number,
]

function toTask(row: TaskRow, userId: string): Task {
  return {
    id: row[0],
    user_id: userId,
    title: row[1],
    description: row[2],
    status: row[3],
    priority: row[4],
    due_at: row[5] === null ? null : toInstant(row[5]),
    tags: row[6],
    position: row[7],
    completed_at: row[8] === null ? null : toInstant(row[8]),
    created_at: toInstant(row[9]),
    updated_at: toInstant(row[10]),
    version: row[11],
  }
}

/** The columns by name, as the fields of `from`. */
const columnsOf = (from: string): SQL =>
  sql.join(
    columns.map(column => sql.raw(`${from}.${column.name}`)),
    sql`, `,
  )

const user = sql`${placeholder('user')}::uuid`
const id = sql`${placeholder('id')}::uuid`
const patch = sql`${placeholder('patch')}::jsonb`
const ifMatch = sql`${placeholder('ifMatch')}::bigint`

export type TaskService = ReturnType<typeof createTaskService>

/**
 * The rules of tasks, each operation one statement: look, take the next number of the person's sequence (which locks
 * that row), write while testing everything again, say what happened. The counter always before the task, so that
 * two writers never wait for each other. What a CTE read before it waited may be old: so values to write come only
 * from the request and the row itself (`t`), never from `seen`.
 */
export function createTaskService(db: Db, driver: Driver) {
  const listRows = (...conditions: SQL[]) =>
    statement<TaskRow>(
      driver,
      db
        .select(Object.fromEntries(columns.map(column => [column.name, column])))
        .from(tasks)
        .where(and(eq(tasks.userId, placeholder('user')), isNull(tasks.deletedAt), ...conditions))
        .orderBy(desc(tasks.createdAt), desc(tasks.id))
        .limit(placeholder('limit'))
        .offset(placeholder('offset')),
    )
  const listAll = listRows()
  // `= any (…)` would not use the order of an index before PostgreSQL 17: one status is asked for by `=`.
  const listByStatus = listRows(sql`${tasks.status} = ${placeholder('status')}`)
  const listByStatuses = listRows(sql`${tasks.status} = any (${placeholder('statuses')}::text[])`)

  const read = statement<TaskRow>(
    driver,
    db
      .select(Object.fromEntries(columns.map(column => [column.name, column])))
      .from(tasks)
      .where(
        and(eq(tasks.id, placeholder('id')), eq(tasks.userId, placeholder('user')), isNull(tasks.deletedAt)),
      ),
  )

  const insert = statement<TaskRow>(
    driver,
    sql`
    with bump as (
      update ${taskCounters} set seq = seq + 1 where user_id = ${user} returning seq
    )
    insert into ${tasks} as t (id, user_id, title, description, status, priority, due_at, tags, position, completed_at, version)
    select ${id}, ${user}, r.title, r.description, coalesce(r.status, 'pending'), coalesce(r.priority, 0), r.due_at,
           coalesce(r.tags, '{}'), coalesce(r.position, ''), case when r.status = 'completed' then now() end, bump.seq
    from bump, jsonb_populate_record(null::${tasks}, ${patch}) r
    returning ${columnsOf('t')}`,
  )

  type Outcome = 'written' | 'same' | 'moved' | 'absent'

  const change = statement<[Outcome, ...TaskRow]>(
    driver,
    sql`
    with seen as (
      select t.*, jsonb_populate_record(t, ${patch}) is distinct from t as changes
      from ${tasks} t where t.id = ${id} and t.user_id = ${user} and t.deleted_at is null
    ), bump as (
      update ${taskCounters} c set seq = c.seq + 1 from seen
      where c.user_id = ${user} and seen.changes and (${ifMatch} is null or seen.version = ${ifMatch})
      returning c.seq
    ), written as (
      update ${tasks} t set
        (title, description, status, priority, due_at, tags, position, completed_at) = (
          select r.title, r.description, r.status, r.priority, r.due_at, r.tags, r.position,
                 case when r.status = 'completed' then coalesce(t.completed_at, now()) end
          from jsonb_populate_record(t, ${patch}) r),
        updated_at = now(), version = bump.seq
      from bump
      where t.id = ${id} and t.user_id = ${user} and t.deleted_at is null
        and (${ifMatch} is null or t.version = ${ifMatch})
      returning ${columnsOf('t')}
    )
    select 'written', ${columnsOf('written')} from written
    union all
    select case when ${ifMatch} is not null and (seen.version <> ${ifMatch} or exists (select from bump)) then 'moved'
                when exists (select from bump) then 'absent' else 'same' end, ${columnsOf('seen')}
    from seen where not exists (select from written)`,
  )

  const trash = statement<[Outcome]>(
    driver,
    sql`
    with seen as (
      select id, version from ${tasks} where id = ${id} and user_id = ${user} and deleted_at is null
    ), bump as (
      update ${taskCounters} c set seq = c.seq + 1 from seen
      where c.user_id = ${user} and (${ifMatch} is null or seen.version = ${ifMatch})
      returning c.seq
    ), written as (
      update ${tasks} t set deleted_at = now(), version = bump.seq from bump
      where t.id = ${id} and t.user_id = ${user} and t.deleted_at is null
        and (${ifMatch} is null or t.version = ${ifMatch})
      returning 1
    )
    select 'written' from written
    union all
    select case when ${ifMatch} is not null then 'moved' else 'absent' end
    from seen where not exists (select from written)`,
  )

  const erase = statement<[Outcome]>(
    driver,
    sql`
    with seen as (
      select id, version from ${tasks} where id = ${id} and user_id = ${user}
    ), bump as (
      update ${taskCounters} c set seq = c.seq + 1 from seen
      where c.user_id = ${user} and (${ifMatch} is null or seen.version = ${ifMatch})
      returning c.seq
    ), gone as (
      delete from ${tasks} t using bump
      where t.id = ${id} and t.user_id = ${user} and (${ifMatch} is null or t.version = ${ifMatch})
      returning t.id, t.user_id, bump.seq as version
    ), stone as (
      insert into ${taskTombstones} (id, user_id, version, deleted_at)
      select id, user_id, version, now() from gone
    )
    select 'written' from gone
    union all
    select case when ${ifMatch} is not null then 'moved' else 'absent' end
    from seen where not exists (select from gone)`,
  )

  // The one query without a person: it decides between 403 and 404, and gives nothing else away.
  const owner = statement<[userId: string]>(
    driver,
    db
      .select({ userId: tasks.userId })
      .from(tasks)
      .where(eq(tasks.id, placeholder('id')))
      .limit(1),
  )

  /** Why a person cannot have a task: somebody else's is 403, none (or one in the trash) 404. */
  async function refuse(userId: string, taskId: string): Promise<never> {
    const [row] = await owner({ id: taskId })
    throw new AppError(row && row[0] !== userId ? 'not_authorized' : 'task_not_found')
  }

  function wellFormed(taskId: string) {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
  }

  function list(userId: string, { limit = 50, offset = 0, status = [] }: ListQuery): Promise<TaskRow[]> {
    const page = { user: userId, limit, offset }
    const statuses = [...new Set(status)]
    if (statuses.length === 0) return listAll(page)
    if (statuses.length === 1) return listByStatus({ ...page, status: statuses[0] })
    return listByStatuses({ ...page, statuses })
  }

  return {
    /** A page of the person's tasks, newest first. */
    async list(userId: string, query: ListQuery): Promise<Task[]> {
      const rows = await list(userId, query)
      return rows.map(row => toTask(row, userId))
    },

    /** One task. Throws `task_not_found`, or `not_authorized` when it is somebody else's. */
    async read(userId: string, taskId: string): Promise<Task> {
      wellFormed(taskId)
      const [row] = await read({ id: taskId, user: userId })
      return row ? toTask(row, userId) : refuse(userId, taskId)
    },

    /** Makes a task. Throws `invalid_token` when the person has gone since the token was checked. */
    async create(userId: string, input: TaskCreate): Promise<Task> {
      const [row] = await insert({ id: Bun.randomUUIDv7(), user: userId, patch: input })
      if (!row) throw new AppError('invalid_token')
      return toTask(row, userId)
    },

    /** Changes what `input` names and nothing else. Throws as `read` does. */
    async update(userId: string, taskId: string, input: TaskUpdate): Promise<Task> {
      wellFormed(taskId)
      const [row] = await change({ id: taskId, user: userId, patch: input, ifMatch: null })
      if (!row || row[0] === 'absent') return refuse(userId, taskId)
      return toTask(row.slice(1) as TaskRow, userId)
    },

    /** Puts a task into the trash, or with `permanent` takes it away for good. Throws as `read` does. */
    async remove(userId: string, taskId: string, permanent: boolean): Promise<void> {
      wellFormed(taskId)
      const [row] = await (permanent ? erase : trash)({ id: taskId, user: userId, ifMatch: null })
      if (row?.[0] !== 'written') return refuse(userId, taskId)
    },
  }
}
