import { getTableColumns, getTableName } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import { version } from '../../../package.json'
import type { Session } from '../../db/driver.ts'
import { createDb } from '../../db/drizzle.ts'
import { appliedMigrations } from '../../db/migrator.ts'
import { tasks, taskTombstones, users } from '../../db/tables.ts'
import { toPatch } from '../../modules/tasks/rows.ts'
import { type Output, writeOutput } from '../atomic-file.ts'
import { readConfig } from '../env.ts'
import { findUser } from '../find-user.ts'
import { openSnapshot } from '../open-database.ts'
import { createProgress, say } from '../terminal.ts'
import { asJson, beginSnapshot, readTexts } from './read-cursor.ts'

/** What stands in the first line of an export. */
export const exportFormat = { format: 'todo-api-export', version: 2 } as const

/** What the other lines are about. */
export type LineType = 'user' | 'task' | 'tombstone'

/** The columns of a task that follow from others: `import` computes them again. */
const given = { title: '', description: '' }
const computed = Object.keys(toPatch(given)).filter(name => !(name in given))

/** The columns that a line of each type holds. */
export const exportedColumns = {
  user: columnsOf(users, ['normalized_email']),
  task: columnsOf(tasks, computed),
  tombstone: columnsOf(taskTombstones, []),
}

function columnsOf(table: PgTable, without: string[]) {
  return Object.values(getTableColumns(table)).filter(
    ({ name, generated }) => !generated && !without.includes(name),
  )
}

const listOf = (type: LineType, prefix = '') =>
  exportedColumns[type].map(({ name }) => prefix + name).join(', ')

/** `todo-api export`: writes everything of all users, or of one, as lines of JSON to a file; `-` is stdout. */
export async function exportCommand(file: string, { user }: { user?: string }): Promise<void> {
  const driver = await openSnapshot(readConfig())
  try {
    // Refuses a database whose tables are not these.
    await appliedMigrations(driver)
    const id = user === undefined ? undefined : (await findUser(createDb(driver), user)).id
    const counts = await writeOutput(file || '-', output =>
      driver.session(session => exportRows(session, id, output)),
    )
    say(`exported ${counts.user} users, ${counts.task} tasks, ${counts.tombstone} notes of deleted tasks`)
  } finally {
    await driver.close()
  }
}

/**
 * First a header, then users, then tasks (those in the trash, too) and the notes of deleted tasks, each user's in the
 * order of their versions; at last a line that says how many of each: without it a file is not complete. All as they
 * were at one moment.
 */
async function exportRows(session: Session, userId: string | undefined, output: Output) {
  const counts = { user: 0, task: 0, tombstone: 0 }
  const progress = createProgress('rows')
  await session.execute(beginSnapshot)
  // Reads the rows in the order of their indexes: sorting them would take their size in temporary files.
  await session.execute('set local enable_sort = off')
  const made = { program: version, exported_at: new Date().toISOString() }
  await output.write(`${JSON.stringify({ type: 'header', ...exportFormat, ...made })}\n`)
  for (const [name, query] of Object.entries(queries(userId))) {
    for await (const lines of readTexts(session, `export_${name}`, query)) {
      await output.write(`${lines.join('\n')}\n`)
      for (const line of lines) counts[typeOf(line)]++
      progress.add(lines.length)
    }
  }
  await session.execute('commit')
  await output.write(`${JSON.stringify({ type: 'end', ...counts })}\n`)
  progress.clear()
  return counts
}

/** Every line begins with its type. */
const typeOf = (line: string) =>
  line.slice('{"type":"'.length, line.indexOf('"', '{"type":"'.length)) as LineType

/** The database writes the lines: what is not taken apart here need not be put together again. */
function queries(userId: string | undefined): Record<string, string> {
  // An id from the database itself.
  const only = (column: string) => (userId === undefined ? '' : `where ${column} = '${userId}'`)
  const lines = (type: LineType, columns: string, from: string) =>
    asJson(`select '${type}' as type, ${columns} from ${from}`)
  const versioned = (type: LineType, table: typeof tasks | typeof taskTombstones) =>
    `select user_id, version, row_to_json(r)::text as json
     from (select '${type}' as type, ${listOf(type)} from ${getTableName(table)} ${only('user_id')}) r`
  return {
    users: lines(
      'user',
      `${listOf('user', 'u.')}, v.last_version`,
      `users u join user_versions v on v.user_id = u.id ${only('u.id')} order by u.created_at, u.id`,
    ),
    // Merged by the database from two indexes, so that `import` keeps their order. What a deleted account has left for a
    // moment belongs to no user.
    rows: `
      select json from (${versioned('task', tasks)} union all ${versioned('tombstone', taskTombstones)}) rows
      where (select true from users u where u.id = rows.user_id) order by user_id, version`,
  }
}
