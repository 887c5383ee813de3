import { t } from 'elysia'
import type { DedicatedConnection } from '../../db/driver.ts'
import { isSchemaMissing } from '../../db/pg-error.ts'
import { isUuid } from '../../lib/uuid.ts'
import { email, normalizeEmail } from '../../modules/auth/model.ts'
import { taskCreate } from '../../modules/tasks/model.ts'
import { toColumns } from '../../modules/tasks/to-columns.ts'
import { createCheck, passwordHash } from '../check-schema.ts'
import type { NewRow } from './bulk-insert.ts'
import type { Loader } from './loader.ts'
import { beginSnapshot, readJson } from './read-cursor.ts'

/** A row of the FastAPI service's tables, by the names of the columns; each cell is text. */
type Cells = Partial<Record<string, string | null>>

const users = `
  select id::text, email, password_hash, created_at::timestamptz::text from "user" order by created_at, id`

// By user, oldest first: versions then follow the order in which tasks were made.
const tasks = `
  select id::text, user_id::text, title, description, status,
         created_at::timestamptz::text, coalesce(updated_at, created_at)::timestamptz::text as updated_at
  from task order by user_id, created_at, id`

/** Begins a snapshot and counts its rows. Throws an Error with one line when the tables are not those of the FastAPI service. */
export async function countFastApi(source: DedicatedConnection): Promise<{ users: number; tasks: number }> {
  try {
    await source.execute(beginSnapshot)
    const [row] = await source.execute('select (select count(*) from "user"), (select count(*) from task)')
    return { users: Number(row![0]), tasks: Number(row![1]) }
  } catch (error) {
    if (!isSchemaMissing(error)) throw error
    throw new Error('the database to import from has no tables "user" and "task" of the FastAPI service')
  }
}

/** Adds the users and tasks of the snapshot that `countFastApi` began. */
export async function importFastApi(source: DedicatedConnection, loader: Loader): Promise<void> {
  for await (const page of readJson(source, users)) await add(page, toUser, loader)
  for await (const page of readJson(source, tasks)) await add(page, toTask, loader)
  await source.execute('commit')
}

/** Turns a row of the old tables into one of ours; `problem` says why it cannot be. */
type Reader = (cells: Cells) => NewRow | { label: string; problem: string }

/** Adds a page of at most `rowsAtOnce` rows. */
async function add(page: readonly string[], read: Reader, loader: Loader) {
  const rows = page.map(row => read(JSON.parse(row)))
  for (const row of rows) if ('problem' in row) loader.refuse(row.label, row.problem)
  await loader.add(rows.filter(row => 'table' in row))
}

const checkUser = createCheck(t.Object({ email, password_hash: passwordHash }))
const checkTask = createCheck(taskCreate)

const toUser: Reader = ({ id, email: address, password_hash: hash, created_at }) => {
  const label = `user ${id} (${address})`
  if (!id || !isUuid(id)) return { label, problem: 'its id is not a UUID' }
  const problem = checkUser({ email: address, password_hash: hash })
  if (problem) return { label, problem }
  if (!isMoment(created_at)) return { label, problem: noMoment('created_at') }
  const email = address!.trim()
  return {
    label,
    table: 'user',
    columns: {
      id,
      email,
      normalized_email: normalizeEmail(email),
      password_hash: hash,
      created_at,
      updated_at: created_at,
    },
  }
}

const toTask: Reader = ({ id, user_id, title, description, status, created_at, updated_at }) => {
  const label = `task ${id}`
  if (!id || !isUuid(id)) return { label, problem: 'its id is not a UUID' }
  if (!user_id || !isUuid(user_id)) return { label, problem: 'its user_id is not a UUID' }
  const input = { title: title!, description: description!, status: status as 'pending' }
  const problem = checkTask(input)
  if (problem) return { label, problem }
  if (!isMoment(created_at)) return { label, problem: noMoment('created_at') }
  if (!isMoment(updated_at)) return { label, problem: noMoment('updated_at') }
  return {
    label,
    table: 'task',
    columns: {
      id,
      user_id,
      ...toColumns(input),
      // The FastAPI service did not record when a task was completed; the last change is the best guess.
      completed_at: status === 'completed' ? (updated_at ?? created_at ?? new Date().toISOString()) : null,
      created_at,
      updated_at,
    },
  }
}

/** Whether it is PostgreSQL's text of a moment in UTC, of the years 1 to 9999; null becomes the default, now. */
function isMoment(text: string | null | undefined): boolean {
  return text === null || /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00$/.test(text ?? '')
}

const noMoment = (column: string) => `its ${column} is not a moment of the years 1 to 9999`
