import { getTableName } from 'drizzle-orm'
import { version } from '../../../package.json'
import type { Driver } from '../../db/driver.ts'
import { migrationState } from '../../db/migrator.ts'
import { exportedTables, type RowType } from '../../modules/table-registry.ts'
import { exitOnSignal, type Output, writeOutput } from '../atomic-file.ts'
import { findUser } from '../find-user.ts'
import { withSnapshot } from '../open-database.ts'
import { createProgress, say } from '../terminal.ts'
import { exportedColumns, exportFormat, zeroCounts } from './format.ts'
import { beginSnapshot, readJson } from './read-cursor.ts'

const listOf = (type: RowType) =>
  exportedColumns(type)
    .map(({ name }) => name)
    .join(', ')

/** `todo-api export`: writes everything of all users, or of one, as lines of JSON to a file; `-` is stdout. */
export async function exportCommand(file: string, { user }: { user?: string }): Promise<void> {
  exitOnSignal()
  // The file first: a folder that does not exist is noticed before the copy is made.
  const counts = await writeOutput(file || '-', output =>
    withSnapshot(async (db, driver) => {
      // Refuses a database whose tables are not these.
      await migrationState(driver)
      return exportAll(driver, output, user === undefined ? undefined : (await findUser(db, user)).id)
    }),
  )
  const deletions = counts.tombstone + counts.list_tombstone
  const counted = `${counts.user} users, ${counts.list} lists, ${counts.task} tasks, ${deletions} notes of deletions`
  say(`exported ${counted}; no sessions or API tokens`)
}

/**
 * Writes a header, the users, their lists, tasks (the trash, too) and tombstones, all of them or those of one user, and a
 * last line that counts the others: a file without it is incomplete. Everything is from one snapshot. Returns the counts.
 */
export function exportAll(driver: Driver, output: Output, userId?: string) {
  return driver.dedicatedConnection(async connection => {
    const counts = zeroCounts()
    using progress = createProgress()
    await connection.execute(beginSnapshot)
    // Reads the rows in the order of an index: a sort would need temporary files of their size.
    await connection.execute('set local enable_sort = off')
    const made = { program: version, exported_at: new Date().toISOString() }
    await output.write(`${JSON.stringify({ type: 'header', ...exportFormat, ...made })}\n`)
    for (const [type, query] of queries(userId)) {
      for await (const lines of readJson(connection, query)) {
        await output.write(`${lines.join('\n')}\n`)
        counts[type] += lines.length
        progress.add(lines.length)
      }
    }
    await connection.execute('commit')
    await output.write(`${JSON.stringify({ type: 'end', ...counts })}\n`)
    return counts
  })
}

/** The database makes the lines, so that no row is parsed and written again. */
function queries(userId: string | undefined): [RowType, string][] {
  // `userId` comes from the database.
  const and = (column: string) => (userId === undefined ? '' : `and ${column} = '${userId}'`)
  // Rows that a deleted account has left are skipped.
  const owned = (type: RowType, which = 'true') =>
    `select '${type}' as type, ${listOf(type)} from ${getTableName(exportedTables[type])} r
     where ${which} ${and('user_id')} and (select true from users u where u.id = r.user_id) order by user_id, version`
  const accounts = `
    select 'user' as type, ${listOf('user')}, coalesce(v.last_version, 0) as last_version
    from users u left join user_versions v on v.user_id = u.id
    where true ${and('u.id')} order by u.created_at, u.id`
  return [
    ['user', accounts],
    // What others refer to comes before them.
    ['list', owned('list')],
    ['task', owned('task', 'parent_id is null')],
    ['task', owned('task', 'parent_id is not null')],
    ['tombstone', owned('tombstone')],
    ['list_tombstone', owned('list_tombstone')],
  ]
}
