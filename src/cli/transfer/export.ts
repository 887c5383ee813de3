import { getTableColumns, getTableName } from 'drizzle-orm'
import type { PgTable } from 'drizzle-orm/pg-core'
import { version } from '../../../package.json'
import type { DedicatedConnection, Driver } from '../../db/driver.ts'
import { createDb } from '../../db/drizzle.ts'
import { migrationState } from '../../db/migrator.ts'
import { listTombstones, taskTombstones, users } from '../../db/tables.ts'
import { lists } from '../../modules/lists/table.ts'
import { toColumns } from '../../modules/tasks/rows.ts'
import { tasks } from '../../modules/tasks/table.ts'
import { type Output, writeOutput } from '../atomic-file.ts'
import { readConfig } from '../env.ts'
import { findUser } from '../find-user.ts'
import { openSnapshot } from '../open-database.ts'
import { createProgress, say } from '../terminal.ts'
import { asJson, beginSnapshot, readTexts } from './read-cursor.ts'

/** The first line of an export. */
export const exportFormat = { format: 'todo-api-export', version: 3 } as const

/** The types of the other lines. */
export type LineType = 'user' | 'list' | 'task' | 'tombstone' | 'list_tombstone'

/** The columns of a task that follow from others: `import` computes them again. */
const given = { title: '', description: '' }
const computed = Object.keys(toColumns(given)).filter(name => !(name in given))

/** The columns that a line of each type holds. */
export const exportedColumns = {
  user: columnsOf(users, ['normalized_email']),
  list: columnsOf(lists, []),
  task: columnsOf(tasks, computed),
  tombstone: columnsOf(taskTombstones, []),
  list_tombstone: columnsOf(listTombstones, []),
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
    await migrationState(driver)
    const id = user === undefined ? undefined : (await findUser(createDb(driver), user)).id
    const counts = await writeOutput(file || '-', output => exportAll(driver, output, id))
    const deletions = counts.tombstone + counts.list_tombstone
    const counted = `${counts.user} users, ${counts.list} lists, ${counts.task} tasks, ${deletions} notes of deletions`
    say(`exported ${counted}; no sessions or API tokens`)
  } finally {
    await driver.close()
  }
}

/** Writes everything of all users, or of one. */
export const exportAll = (driver: Driver, output: Output, userId?: string) =>
  driver.dedicatedConnection(connection => exportRows(connection, userId, output))

/**
 * Writes a header, the users, the lists, then tasks (the trash, too) and tombstones of each user in the order of their
 * versions, the tasks with a parent last, and a last line that counts them: a file without it is incomplete. All from one
 * snapshot.
 */
async function exportRows(connection: DedicatedConnection, userId: string | undefined, output: Output) {
  const counts = { user: 0, list: 0, task: 0, tombstone: 0, list_tombstone: 0 }
  const progress = createProgress('rows')
  await connection.execute(beginSnapshot)
  // Reads the rows in the order of an index: a sort would need temporary files of their size.
  await connection.execute('set local enable_sort = off')
  const made = { program: version, exported_at: new Date().toISOString() }
  await output.write(`${JSON.stringify({ type: 'header', ...exportFormat, ...made })}\n`)
  for (const [name, query] of Object.entries(queries(userId))) {
    for await (const lines of readTexts(connection, `export_${name}`, query)) {
      await output.write(`${lines.join('\n')}\n`)
      for (const line of lines) counts[typeOf(line)]++
      progress.add(lines.length)
    }
  }
  await connection.execute('commit')
  await output.write(`${JSON.stringify({ type: 'end', ...counts })}\n`)
  progress.clear()
  return counts
}

/** Every line begins with its type. */
const typeOf = (line: string) =>
  line.slice('{"type":"'.length, line.indexOf('"', '{"type":"'.length)) as LineType

/** The database makes the lines, so that no row is parsed and written again. */
function queries(userId: string | undefined): Record<string, string> {
  // `userId` comes from the database.
  const and = (column: string) => (userId === undefined ? '' : `and ${column} = '${userId}'`)
  const lines = (type: LineType, columns: string, from: string) =>
    asJson(`select '${type}' as type, ${columns} from ${from}`)
  const versioned = (type: LineType, table: PgTable, which = 'true') =>
    `select user_id, version, row_to_json(r)::text as json
     from (select '${type}' as type, ${listOf(type)} from ${getTableName(table)} where ${which} ${and('user_id')}) r`
  // A merge of indexes, in the order that `import` keeps. Rows that a deleted account has left are skipped.
  const merged = (...parts: string[]) => `
    select json from (${parts.join(' union all ')}) rows
    where (select true from users u where u.id = rows.user_id) order by user_id, version`
  return {
    users: lines(
      'user',
      `${listOf('user', 'u.')}, v.last_version`,
      `users u join user_versions v on v.user_id = u.id where true ${and('u.id')} order by u.created_at, u.id`,
    ),
    // What others refer to comes before them.
    lists: merged(versioned('list', lists)),
    rows: merged(
      versioned('task', tasks, 'parent_id is null'),
      versioned('tombstone', taskTombstones),
      versioned('list_tombstone', listTombstones),
    ),
    children: merged(versioned('task', tasks, 'parent_id is not null')),
  }
}
