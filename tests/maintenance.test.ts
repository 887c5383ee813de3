import { expect, spyOn, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { runMaintenance, startMaintenance } from '../src/db/embedded/maintenance.ts'
import { openDriver } from '../src/db/open-driver.ts'
import { until } from './support/until.ts'

/** A database whose log since the last checkpoint is this long, and the statements that it receives. */
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

    await runMaintenance(run)

    expect([megabytes, statements.includes('checkpoint')]).toEqual([megabytes, isCut])
  }
})

test('a round that fails is repeated by the next one, and harms no one', async () => {
  let rounds = 0
  const stop = startMaintenance(() => {
    rounds++
    return Promise.reject(new Error('the engine is broken'))
  }, 1)
  try {
    await until(async () => rounds >= 3)
  } finally {
    stop()
  }
})

test('a round that takes longer than its period is not joined by another one', () => {
  const timers = spyOn(globalThis, 'setInterval')
  let begun = 0
  const stop = startMaintenance(() => {
    begun++
    return new Promise(() => {})
  })
  const [round] = timers.mock.calls.at(-1)!
  timers.mockRestore()
  stop()

  for (let turn = 0; turn < 2; turn++) void (round as () => unknown)()

  expect(begun).toBe(1)
})

test('a table that was filled before the start is analyzed after it, without another change', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-maintenance-'))
  try {
    const filling = await openDriver({ kind: 'embedded', dataDir })
    await filling.dedicatedConnection(connection =>
      connection.execute(
        'create table filled as select n from generate_series(1, 5000) n; create table empty (n int)',
      ),
    )
    await filling.close()

    const driver = await openDriver({ kind: 'embedded', dataDir })
    const size = async () =>
      await driver.query(
        `select reltuples from pg_class where relname in ('filled', 'empty') order by relname`,
        [],
      )
    const before = (await size()).flat()
    const stop = startMaintenance(
      statement => driver.dedicatedConnection(connection => connection.execute(statement)),
      1,
    )
    await until(async () => (await size()).flat()[1] === 5000)
    stop()

    expect([before, (await size()).flat()]).toEqual([
      [-1, -1],
      [-1, 5000],
    ])
    await driver.close()
  } finally {
    rmSync(dataDir, { recursive: true })
  }
}, 60_000)

test('nothing is vacuumed while space is short: that writes log', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-maintenance-'))
  const timers = spyOn(globalThis, 'setInterval')
  try {
    const sizes = async (freeBytesMin: number) => {
      timers.mockClear()
      const driver = await openEmbedded({ dataDir, freeBytesMin })
      const [round] = timers.mock.calls.find(([, everyMs]) => everyMs === 60_000)!
      await (round as () => Promise<void>)()
      const [[size] = []] = await driver.query(`select reltuples from pg_class where relname = 'filled'`, [])
      await driver.close()
      return size
    }
    const making = await openEmbedded({ dataDir })
    await making.query('create table filled as select 1 as n', [])
    await making.close()

    expect([await sizes(Number.MAX_SAFE_INTEGER), await sizes(0)]).toEqual([-1, 1])
  } finally {
    timers.mockRestore()
    rmSync(dataDir, { recursive: true })
  }
}, 60_000)

test('a table is vacuumed where more than fifty rows and a fifth are dead, or fifty and a tenth have changed', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-maintenance-'))
  try {
    const driver = await openDriver({ kind: 'embedded', dataDir })
    const run = (statement: string) => driver.dedicatedConnection(connection => connection.execute(statement))
    for (const [table, dead, added] of [
      ['few', 100, 100],
      ['dead', 300, 0],
      ['added', 0, 200],
    ] as const) {
      await run(`create table ${table} as select n from generate_series(1, 1000) n`)
      await run(`delete from ${table} where n <= ${dead}`)
      await run('select pg_stat_force_next_flush()')
      await run(`analyze ${table}`)
      await run(`insert into ${table} select n from generate_series(1, ${added}) n`)
      await run('select pg_stat_force_next_flush()')
    }
    const statements: string[] = []
    await runMaintenance(statement => {
      statements.push(statement)
      return run(statement)
    })

    expect(statements.filter(statement => statement.startsWith('vacuum')).sort()).toEqual([
      'vacuum (analyze) public.added',
      'vacuum (analyze) public.dead',
    ])
    await driver.close()
  } finally {
    rmSync(dataDir, { recursive: true })
  }
}, 60_000)

test('the catalogs, which each analyze fills, and a table whose transactions are old are vacuumed, too', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-maintenance-'))
  try {
    const driver = await openDriver({ kind: 'embedded', dataDir })
    const statements: string[] = []
    const run = (statement: string) => {
      statements.push(statement)
      return driver.dedicatedConnection(connection => connection.execute(statement))
    }
    for (const table of ['old', 'young'])
      await run(`create table ${table} as select n from generate_series(1, 1000) n`)
    // Otherwise the rows would count as changed after the analyze.
    await run('select pg_stat_force_next_flush()')
    for (let i = 0; i < 3; i++) await run('analyze')
    await run(`update pg_class set relfrozenxid = ((pg_current_xact_id()::text::bigint - 200000001) & 4294967295)::text::xid
      where relname = 'old'`)
    await run('select pg_stat_force_next_flush()')
    const vacuumed = async () => {
      statements.length = 0
      await runMaintenance(run)
      return statements.filter(statement => statement.startsWith('vacuum'))
    }

    const first = await vacuumed()
    expect(first.filter(statement => statement.includes('public'))).toEqual(['vacuum (analyze) public.old'])
    expect(first).toContain('vacuum pg_catalog.pg_statistic')
    expect(await vacuumed()).toEqual([])
    await driver.close()
  } finally {
    rmSync(dataDir, { recursive: true })
  }
}, 60_000)
