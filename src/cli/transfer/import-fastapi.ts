import { t } from 'elysia'
import type { Session } from '../../db/driver.ts'
import { databaseError } from '../../db/pg-error.ts'
import { isUuid } from '../../lib/uuid.ts'
import { email } from '../../modules/auth/model.ts'
import { normalizeEmail } from '../../modules/auth/service.ts'
import { taskCreate } from '../../modules/tasks/model.ts'
import { toPatch } from '../../modules/tasks/rows.ts'
import type { Incoming, Loader, UserRow, VersionedRow } from './bulk-insert.ts'
import { createCheck, isPasswordHash } from './check-schema.ts'
import { asJson, beginSnapshot, readTexts } from './read-cursor.ts'

/** A row of the old tables, each cell as text. */
type Cells<Name extends string> = Record<Name, string | null>

const users = `
  select id::text, email, password_hash, created_at::timestamptz::text from "user" order by created_at, id`

// The tasks of a user together and the oldest first: their numbers then follow the order in which they were made.
const tasks = `
  select id::text, user_id::text, title, description, status,
         created_at::timestamptz::text, coalesce(updated_at, created_at)::timestamptz::text as updated_at
  from task order by user_id, created_at, id`

/** How much there is to take over. Throws an Error with one line when these are not the tables of the first service. */
export async function countReference(source: Session): Promise<{ users: number; tasks: number }> {
  try {
    await source.execute(beginSnapshot)
    const [row] = await source.execute('select (select count(*) from "user"), (select count(*) from task)')
    return { users: Number(row![0]), tasks: Number(row![1]) }
  } catch (error) {
    const missing = ['42P01', '42703']
    if (!missing.includes(databaseError(error)?.code ?? '')) throw error
    throw new Error('the database to import from has no tables "user" and "task" of the FastAPI service')
  }
}

/** Reads the old tables in the snapshot that `countReference` began, and writes what it reads. */
export async function importReference(source: Session, loader: Loader, done: (rows: number) => void) {
  for await (const rows of readTexts(source, 'users', asJson(users))) {
    await loader.users(take(rows, toUser, loader))
    done(rows.length)
  }
  for await (const rows of readTexts(source, 'tasks', asJson(tasks))) {
    await loader.rows(take(rows, toTask, loader))
    done(rows.length)
  }
  await source.execute('commit')
}

/** What becomes of a row: what goes in, or the reason why it cannot. */
type Reader<Name extends string, To> = (
  cells: Cells<Name>,
) => Incoming<To> | { label: string; problem: string }

function take<Name extends string, To extends object>(
  rows: readonly string[],
  read: Reader<Name, To>,
  loader: Loader,
): Incoming<To>[] {
  return rows.flatMap(row => {
    const result = read(JSON.parse(row))
    if (!('problem' in result)) return [result]
    loader.refuse(result.label, result.problem)
    return []
  })
}

const checkEmail = createCheck(t.Object({ email }))
const checkTask = createCheck(taskCreate)

type OldUser = 'id' | 'email' | 'password_hash' | 'created_at'

const toUser: Reader<OldUser, UserRow> = ({ id, email: address, password_hash: hash, created_at }) => {
  const label = `user ${id} (${address})`
  if (!id || !isUuid(id)) return { label, problem: 'its id is no UUID' }
  const problem = checkEmail({ email: address })
  if (problem) return { label, problem }
  if (!hash || !isPasswordHash(hash)) return { label, problem: 'its password_hash is no bcrypt hash' }
  if (!isMoment(created_at)) return { label, problem: noMoment('created_at') }
  const email = address!.trim()
  return {
    label,
    columns: {
      id,
      email,
      email_key: normalizeEmail(email),
      password_hash: hash,
      created_at,
      updated_at: created_at,
    },
    counter: { seq: 0, pruned_through: 0 },
  }
}

type OldTask = 'id' | 'user_id' | 'title' | 'description' | 'status' | 'created_at' | 'updated_at'

const toTask: Reader<OldTask, VersionedRow> = ({
  id,
  user_id,
  title,
  description,
  status,
  created_at,
  updated_at,
}) => {
  const label = `task ${id}`
  if (!id || !isUuid(id)) return { label, problem: 'its id is no UUID' }
  if (!user_id || !isUuid(user_id)) return { label, problem: 'its user_id is no UUID' }
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
      ...toPatch(input),
      // The FastAPI service did not write down when a task was completed; its last change is the best guess.
      completed_at: status === 'completed' ? updated_at : null,
      created_at,
      updated_at,
      version: null,
    },
  }
}

/** PostgreSQL's text form of a moment, in UTC, from year 1 to 9999; null is today's default. */
function isMoment(text: string | null): boolean {
  return text === null || /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00$/.test(text ?? '')
}

const noMoment = (column: string) => `its ${column} is no moment in the years 1 to 9999`
