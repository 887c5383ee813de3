import { t } from 'elysia'
import { databaseError } from '../db/constraint.ts'
import type { Session } from '../db/driver.ts'
import { email } from '../modules/auth/model.ts'
import { emailKey } from '../modules/auth/service.ts'
import { taskCreate } from '../modules/tasks/model.ts'
import { toPatch } from '../modules/tasks/rows.ts'
import { isUuid } from '../uuid.ts'
import { createCheck, isPasswordHash } from './checks.ts'
import type { Incoming, IncomingPerson, IncomingTask, Loader } from './load.ts'
import { beginSnapshot, readRows } from './rows.ts'

/** A cell of the old tables, as text. */
type Cell = string | null

const people = `
  select id::text, email, password_hash, created_at::timestamptz::text from "user" order by created_at, id`

// A person's tasks together and the oldest first: their numbers then follow the order in which they were made.
const tasks = `
  select id::text, user_id::text, title, description, status,
         created_at::timestamptz::text, coalesce(updated_at, created_at)::timestamptz::text
  from task order by user_id, created_at, id`

/** How much there is to take over. Throws an Error with one line when these are not the tables of the first service. */
export async function countReference(source: Session): Promise<{ people: number; tasks: number }> {
  try {
    await source.execute(beginSnapshot)
    const [row] = await source.execute('select (select count(*) from "user"), (select count(*) from task)')
    return { people: Number(row![0]), tasks: Number(row![1]) }
  } catch (error) {
    const missing = ['42P01', '42703']
    if (!missing.includes(databaseError(error)?.code ?? '')) throw error
    throw new Error('the database to import from has no tables "user" and "task" of the first service')
  }
}

/** Reads the old tables in the snapshot that `countReference` began, and writes what it reads. */
export async function importReference(source: Session, loader: Loader, done: (rows: number) => void) {
  for await (const rows of readRows(source, 'people', people)) {
    await loader.people(rows.flatMap(row => take(row as Cell[], toPerson, loader)))
    done(rows.length)
  }
  for await (const rows of readRows(source, 'tasks', tasks)) {
    await loader.rows(
      'task',
      rows.flatMap(row => take(row as Cell[], toTask, loader)),
    )
    done(rows.length)
  }
  await source.execute('commit')
}

/** What becomes of a row: what goes in, or the reason why it cannot. */
type Reader<To extends Incoming> = (cells: Cell[]) => To | { label: string; problem: string }

function take<To extends Incoming>(cells: Cell[], read: Reader<To>, loader: Loader): To[] {
  const result = read(cells)
  if (!('problem' in result)) return [result]
  loader.refuse(result.label, result.problem)
  return []
}

const checkEmail = createCheck(t.Object({ email }))
const checkTask = createCheck(taskCreate)

const toPerson: Reader<IncomingPerson> = ([id, address, hash, createdAt]) => {
  const label = `user ${id} (${address})`
  if (!id || !isUuid(id)) return { label, problem: 'its id is no UUID' }
  const problem = checkEmail({ email: address })
  if (problem) return { label, problem }
  if (!hash || !isPasswordHash(hash)) return { label, problem: 'its password_hash is no bcrypt hash' }
  if (!isMoment(createdAt)) return { label, problem: noMoment('created_at') }
  const trimmed = address!.trim()
  return {
    label,
    row: {
      id,
      email: trimmed,
      email_key: emailKey(trimmed),
      password_hash: hash,
      created_at: createdAt,
      updated_at: createdAt,
      seq: 0,
      pruned_through: 0,
    },
  }
}

const toTask: Reader<IncomingTask> = ([id, userId, title, description, status, createdAt, updatedAt]) => {
  const label = `task ${id}`
  if (!id || !isUuid(id)) return { label, problem: 'its id is no UUID' }
  if (!userId || !isUuid(userId)) return { label, problem: 'its user_id is no UUID' }
  const input = { title: title!, description: description!, status: status as 'pending' }
  const problem = checkTask(input)
  if (problem) return { label, problem }
  if (!isMoment(createdAt)) return { label, problem: noMoment('created_at') }
  if (!isMoment(updatedAt)) return { label, problem: noMoment('updated_at') }
  return {
    label,
    row: {
      id,
      user_id: userId,
      ...toPatch(input),
      // The first service did not write down when a task was completed; its last change is the best guess.
      completed_at: status === 'completed' ? updatedAt : null,
      created_at: createdAt,
      updated_at: updatedAt,
      version: null,
    },
  }
}

/** PostgreSQL's text form of a moment, in UTC, from year 1 to 9999; null is today's default. */
function isMoment(text: Cell | undefined): boolean {
  return text === null || /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00$/.test(text ?? '')
}

const noMoment = (column: string) => `its ${column} is no moment in the years 1 to 9999`
