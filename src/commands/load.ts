import { getTableColumns, placeholder, type SQL, sql } from 'drizzle-orm'
import { statement } from '../db/client.ts'
import { databaseError } from '../db/constraint.ts'
import type { Driver } from '../db/driver.ts'
import { taskCounters, tasks, taskTombstones, users } from '../db/schema.ts'
import { AppError } from '../errors.ts'
import { collectNowAndThen } from './rows.ts'

/** One row on its way in: the columns by their names in the database, and what to call it when it cannot come in. */
export interface Incoming {
  label: string
  row: { id: string } & Record<string, unknown>
}

export interface IncomingPerson extends Incoming {
  row: Incoming['row'] & { seq: number; pruned_through: number }
}

/** `version` null: the next number of the person. */
export interface IncomingTask extends Incoming {
  row: Incoming['row'] & { user_id: string; version: number | null }
}

/** How many rows go in with one statement: all of them or none. */
export const batchRows = 500

type Table = typeof tasks | typeof taskTombstones
export type Loader = ReturnType<typeof createLoader>

/**
 * Writes people and tasks that come from elsewhere, each batch with one statement. What is there already stays as it
 * is, so that running twice changes nothing; what cannot come in goes to `skip`, one call a row.
 */
export function createLoader(driver: Driver, skip: (label: string, reason: string) => void) {
  const peopleIn = peopleStatement(driver)
  const rowsIn = { task: rowsStatement(driver, tasks), tombstone: rowsStatement(driver, taskTombstones) }
  /** People whose tasks went on changing here: what comes late gets a new number, or their clients would miss it. */
  const changedHere = new Set<string>()
  const counts = { added: { user: 0, task: 0, tombstone: 0 }, present: 0, skipped: 0 }

  function refuse(label: string, reason: string) {
    counts.skipped++
    skip(label, reason)
  }

  async function people(batch: readonly IncomingPerson[]): Promise<void> {
    await inParts(batch, async part => {
      const outcomes = await patiently(() => peopleIn({ rows: part.map(({ row }) => row) }))
      for (const [i, [outcome]] of outcomes.entries()) {
        const { label, row } = part[i]!
        if (outcome === 'changed') changedHere.add(row.id)
        if (outcome === 'made') counts.added.user++
        else if (outcome === 'taken') refuse(label, 'another account here has this e-mail address')
        else counts.present++
      }
    })
  }

  async function rows(kind: 'task' | 'tombstone', batch: readonly IncomingTask[]): Promise<void> {
    await inParts(batch, async part => {
      const values = part.map(({ row }) => (changedHere.has(row.user_id) ? { ...row, version: null } : row))
      const outcomes = await patiently(() => rowsIn[kind]({ rows: values }))
      for (const [i, [outcome]] of outcomes.entries()) {
        const { label, row } = part[i]!
        if (outcome === 'made') counts.added[kind]++
        else if (outcome === 'present') counts.present++
        else if (outcome === 'nobody') refuse(label, `its person ${row.user_id} is not here`)
        else refuse(label, `its number ${row.version} belongs to another task here`)
      }
    })
  }

  /** A batch that the database refuses is halved until the row is found that it refuses; the others go in. */
  async function inParts<Row extends Incoming>(
    batch: readonly Row[],
    write: (part: readonly Row[]) => Promise<void>,
  ) {
    if (batch.length === 0) return
    try {
      await write(batch)
      collectNowAndThen()
    } catch (error) {
      const reason = refusal(error)
      if (reason === undefined) throw error
      if (batch.length === 1) return refuse(batch[0]!.label, reason)
      const middle = batch.length >> 1
      await inParts(batch.slice(0, middle), write)
      await inParts(batch.slice(middle), write)
    }
  }

  return { people, rows, refuse, counts }
}

/** Why the database does not want a row: a rule of the table's (class 23), or a value it cannot read (22). */
function refusal(error: unknown): string | undefined {
  const failure = databaseError(error)
  if (!failure || !/^2[23]/.test(failure.code)) return undefined
  const constraint = failure.constraint_name ?? failure.constraint
  return constraint ? `it breaks the rule ${constraint}` : `the database does not take it (${failure.code})`
}

const patienceMs = 30_000

/** Runs a statement again while the database is away: whatever came of the first try, running twice changes nothing. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + patienceMs
  while (true) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof AppError) || performance.now() > until) throw error
      await Bun.sleep(500)
    }
  }
}

/** The columns of a table by name, and their values in `from`, or the table's own where a row says nothing. */
function columnsOf(table: typeof users | Table, from: string, without?: string): { names: SQL; values: SQL } {
  const columns = Object.values(getTableColumns(table)).filter(
    ({ name, generated }) => name !== without && !generated,
  )
  const value = ({ name, notNull, default: fallback }: (typeof columns)[number]) => {
    const given = sql.raw(`${from}.${name}`)
    return notNull && fallback !== undefined ? sql`coalesce(${given}, ${fallback})` : given
  }
  return {
    names: sql.raw(columns.map(column => column.name).join(', ')),
    values: sql.join(columns.map(value), sql`, `),
  }
}

const incoming = sql`${placeholder('rows')}::jsonb`

/**
 * A person comes with the counter, as at registration. `changed`: the person is here, and the counter is not where it
 * was. An address that another account has is `taken`, also by one that came before it in the same batch.
 */
function peopleStatement(driver: Driver) {
  const { names, values } = columnsOf(users, 'i')
  return statement<['made' | 'present' | 'changed' | 'taken']>(
    driver,
    sql`
    with input as (
      select * from jsonb_populate_recordset(null::${users}, ${incoming}) with ordinality
    ), numbers as (
      select * from jsonb_to_recordset(${incoming}) as n(id uuid, seq bigint, pruned_through bigint)
    ), made as (
      insert into ${users} (${names}) select ${values} from input i order by i.ordinality
      on conflict do nothing returning id
    ), counter as (
      insert into ${taskCounters} (user_id, seq, pruned_through)
      select distinct on (n.id) n.id, n.seq, n.pruned_through from numbers n join made using (id)
    )
    select case when made.id is not null then 'made'
                when u.id is null then 'taken'
                when c.seq is distinct from (select max(n.seq) from numbers n where n.id = i.id) then 'changed'
                else 'present' end
    from input i left join made on made.id = i.id
      left join ${users} u on u.id = i.id left join ${taskCounters} c on c.user_id = i.id
    order by i.ordinality`,
  )
}

/**
 * A row keeps its number unless it has none or one that its person never gave out; then it gets the next ones of the
 * person's sequence, in the order of the rows. A task that was deleted here for good does not come back.
 */
function rowsStatement(driver: Driver, table: Table) {
  const { names, values } = columnsOf(table, 'f', 'version')
  return statement<['made' | 'present' | 'nobody' | 'refused']>(
    driver,
    sql`
    with input as (
      select * from jsonb_populate_recordset(null::${table}, ${incoming}) with ordinality
    ), known as (
      select i.ordinality, c.seq, case when i.version <= c.seq then i.version end as own,
             exists (select from ${tasks} t where t.id = i.id and t.user_id = i.user_id)
             or exists (select from ${taskTombstones} s where s.id = i.id and s.user_id = i.user_id) as present
      from input i left join ${taskCounters} c on c.user_id = i.user_id
    ), fresh as (
      select i.*, k.own, row_number() over (partition by i.user_id, k.own is null order by i.ordinality) as place
      from input i join known k using (ordinality) where k.seq is not null and not k.present
    ), bump as (
      update ${taskCounters} c set seq = c.seq + f.wanted
      from (select user_id, count(*) as wanted from fresh where own is null group by user_id) f
      where c.user_id = f.user_id
      returning c.user_id, c.seq - f.wanted as base
    ), made as (
      insert into ${table} (${names}, version)
      select ${values}, coalesce(f.own, b.base + f.place)
      from fresh f left join bump b on b.user_id = f.user_id
      on conflict do nothing returning id, user_id
    )
    select case when made.id is not null then 'made'
                when k.seq is null then 'nobody'
                when k.present then 'present'
                else 'refused' end
    from input i join known k using (ordinality) left join made on made.id = i.id and made.user_id = i.user_id
    order by i.ordinality`,
  )
}
