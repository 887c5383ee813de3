import { expect, test } from 'bun:test'
import { startUpkeep, tidy } from '../src/db/upkeep.ts'
import { until } from './support/until.ts'

/** A database whose log since the last checkpoint is this long, and what it is told to do. */
function databaseWithLog(megabytes: number) {
  const statements: string[] = []
  return {
    statements,
    async run(statement: string): Promise<unknown[][]> {
      statements.push(statement)
      return statement.includes('pg_wal_lsn_diff') ? [[String(megabytes * 1024 * 1024)]] : []
    },
  }
}

test('a log of more than 64 MB since the last checkpoint is cut by another one', async () => {
  for (const [megabytes, isCut] of [
    [64, false],
    [65, true],
  ] as const) {
    const { run, statements } = databaseWithLog(megabytes)

    await tidy(run)

    expect([megabytes, statements.includes('checkpoint')]).toEqual([megabytes, isCut])
  }
})

test('what fails once is tried again after the next change, and harms no one', async () => {
  let rounds = 0
  const upkeep = startUpkeep(() => {
    rounds++
    return Promise.reject(new Error('the engine is broken'))
  }, 1)
  try {
    for (const round of [1, 2, 3]) {
      upkeep.due = true
      await until(async () => rounds === round)
      // A round that has failed is over a moment later.
      await new Promise(setImmediate)
    }
  } finally {
    upkeep.stop()
  }
})
