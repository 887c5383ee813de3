import { sql } from 'drizzle-orm'
import { statement } from '../../db/client.ts'
import { databaseError } from '../../db/constraint.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks } from '../../db/schema.ts'
import { AppError, type Problem } from '../../errors.ts'
import { isUuid } from '../../uuid.ts'
import type { Operation, OperationResult, TaskCreate } from './model.ts'
import {
  changedColumns,
  changedValues,
  columnsOf,
  insertColumns,
  insertValues,
  noColumns,
  type TaskRow,
  toNewRow,
  toPatch,
  toTask,
  value,
} from './rows.ts'

const user = value('user', 'uuid')

type Outcome = 'ok' | 'user_gone' | 'exists' | 'absent' | 'moved' | 'written' | 'same'

/**
 * Up to 100 operations, all or nothing, in one statement: as in `statements.ts`, but `fault` lists what cannot be done,
 * and as soon as there is one nothing is numbered and nothing is written. A race that is lost after that check must
 * undo what is written already: the division by zero does, and the caller runs the statement again.
 */
const batchQuery = sql`
  with op as materialized (
    select o.i, o.op, o.id, o.version, o.patch, t as task, t.id is not null as is_known,
           t.id is not null and t.deleted_at is null as is_live,
           o.op <> 'update' or jsonb_populate_record(t, o.patch) is distinct from t as changes
    from jsonb_to_recordset(${value('operations', 'jsonb')}) as o(i int, op text, id uuid, version bigint, patch jsonb)
    left join ${tasks} t on t.id = o.id and t.user_id = ${user}
  ), fault as (
    select i, case when op = 'create' then 'exists' when not is_live then 'absent' else 'moved' end as code
    from op
    where case op when 'create' then is_known else not is_live or (task).version <> version end
  ), numbered as materialized (
    select i, op, id, version, patch, row_number() over (order by i) as n
    from op where changes and not exists (select from fault)
  ), bump as (
    update ${taskCounters} c set seq = c.seq + w.n
    from (select count(*) as n from numbered) w
    where c.user_id = ${user} and w.n > 0
    returning c.seq - w.n as base
  ), made as (
    insert into ${tasks} as t (${insertColumns})
    select w.id, ${user}, ${insertValues(field => sql.raw(`r.${field}`))}, bump.base + w.n
    from bump, numbered w, jsonb_populate_record(null::${tasks}, w.patch) r where w.op = 'create'
    returning ${columnsOf('t')}
  ), changed as (
    update ${tasks} t set (${changedColumns}) =
        (select ${changedValues} from jsonb_populate_record(t, coalesce(w.patch, '{}')) r),
      deleted_at = case when w.op = 'delete' then now() end,
      updated_at = case when w.op = 'delete' then t.updated_at else now() end,
      version = bump.base + w.n
    from bump, numbered w
    where w.op <> 'create' and t.id = w.id and t.user_id = ${user} and t.deleted_at is null
      and (w.version is null or t.version = w.version)
    returning ${columnsOf('t')}
  ), tally as (
    select (select count(*) from numbered) - (select count(*) from made) - (select count(*) from changed) as lost,
           (select count(*) from bump) as bumped
  )
  select -1 as i, case when lost > 0 and bumped > 0 then (1 / (bumped - 1))::text
                       when lost > 0 then 'user_gone' else 'ok' end as outcome, ${noColumns} from tally
  union all select fault.i, fault.code, ${noColumns} from fault
  union all select op.i, 'written', ${columnsOf('made')} from made join op on op.id = made.id
  union all select op.i, 'written', ${columnsOf('changed')} from changed join op on op.id = changed.id
  union all select op.i, 'same', ${columnsOf('(op.task)')} from op where not changes and not exists (select from fault)
  order by i`

const triesMax = 3

export function createBatch(driver: Driver, ownerOf: (values: { id: string }) => Promise<[string][]>) {
  const statementOf = statement<[i: number, outcome: Outcome, ...TaskRow]>(driver, batchQuery)

  /** Again when a race was lost; when that goes on, somebody else is too busy with these tasks. */
  async function run(values: { user: string; operations: object[] }) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await statementOf(values)
      } catch (error) {
        const divisionByZero = '22012'
        if (databaseError(error)?.code !== divisionByZero) throw error
        if (attempt === triesMax) throw new AppError('unavailable', { cause: error })
      }
    }
  }

  /**
   * Carries out all operations or none. Throws `validation_failed`; or, with the `index` of the first operation that
   * cannot be done, `task_not_found`, `not_authorized` or `precondition_failed`.
   */
  return async function batch(userId: string, operations: Operation[]): Promise<OperationResult[]> {
    const problems = problemsOf(operations)
    if (problems.length > 0) throw new AppError('validation_failed', { detail: problems })
    const ids = operations.map(({ op, id }) => (op === 'create' ? Bun.randomUUIDv7() : id!.toLowerCase()))
    const rows = await run({
      user: userId,
      operations: operations.map(({ op, version, task }, i) => ({
        i,
        op,
        id: ids[i],
        version,
        patch: patchOf(op, task),
      })),
    })
    const fault = rows.find(
      ([, outcome]) => outcome === 'absent' || outcome === 'moved' || outcome === 'exists',
    )
    if (fault) return refuse(userId, ids[fault[0]]!, fault)
    if (rows[0]![1] === 'user_gone') throw new AppError('invalid_token')
    return rows.slice(1).map(([i, , , , json]) => {
      const { op } = operations[i]!
      return { op, id: ids[i]!, task: op === 'delete' ? null : toTask(json) }
    })
  }

  async function refuse(
    userId: string,
    id: string,
    [index, outcome]: [number, Outcome, ...unknown[]],
  ): Promise<never> {
    if (outcome === 'moved') throw new AppError('precondition_failed', { index })
    const [row] = await ownerOf({ id })
    throw new AppError(row && row[0] !== userId ? 'not_authorized' : 'task_not_found', { index })
  }
}

function patchOf(op: Operation['op'], task: Operation['task']) {
  if (op === 'delete') return undefined
  return op === 'create' ? toNewRow(task as TaskCreate) : toPatch(task!)
}

/** What the schema cannot say: what each kind of operation needs, and that no task may come twice. */
function problemsOf(operations: Operation[]): Problem[] {
  const seen = new Set<string>()
  return operations.flatMap(({ op, id, version, task }, i) => {
    const problem = (field: string, type: string, msg: string): Problem => ({
      loc: ['body', 'operations', i, ...field.split('.')],
      msg,
      type,
    })
    const missing = (field: string) => problem(field, 'missing', 'Field required')
    const problems: Problem[] = []
    if (op !== 'delete' && !task) problems.push(missing('task'))
    if (op === 'create') {
      if (task && task.title === undefined) problems.push(missing('task.title'))
      if (id !== undefined) problems.push(problem('id', 'not_combinable', 'Not with create'))
      if (version !== undefined) problems.push(problem('version', 'not_combinable', 'Not with create'))
      return problems
    }
    if (id === undefined) return [...problems, missing('id')]
    const key = id.toLowerCase()
    if (!isUuid(id)) problems.push(problem('id', 'uuid', 'Input should be the id of a task'))
    else if (seen.has(key)) problems.push(problem('id', 'duplicate', 'A task can come once only'))
    seen.add(key)
    return problems
  })
}
