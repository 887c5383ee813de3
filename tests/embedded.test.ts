import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, spyOn, test } from 'bun:test'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { lockFile, lockLimits, openDataDir, prepareDataDir } from '../src/config/data-dir.ts'
import { loadSecretKey } from '../src/config/secret-key.ts'
import type { Driver, Query } from '../src/db/driver.ts'
import { archiveName } from '../src/db/embedded/cluster-archive.macro.ts'
import { ensureCluster, template } from '../src/db/embedded/cluster-files.ts'
import { freeBytes, freeBytesMin } from '../src/db/embedded/copy.ts'
import { DurableFS } from '../src/db/embedded/durable-fs.ts'
import { onlyReads, openEmbedded } from '../src/db/embedded/embedded.ts'
import { runMaintenance } from '../src/db/embedded/maintenance.ts'
import { migrationState, migrations } from '../src/db/migrator.ts'
import { budgetMs, setCaller, withTimeBudget } from '../src/db/time-budget.ts'
import { executablePath, type Running, startExecutable } from './support/executable.ts'
import type { User } from './support/harness.ts'

// Milliseconds: opening takes one second, and on a busy machine several.
setDefaultTimeout(60_000)

const root = join(import.meta.dir, '..')
const undo: (() => unknown)[] = []

/** For the tests that neither close nor break it; each makes tables of its own. */
let driver: Driver
let home: string

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'todo-embedded-'))
  driver = await openEmbedded({ dataDir: home })
})

afterAll(async () => {
  await driver.close()
  rmSync(home, { recursive: true })
})

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

test.each(['', 'nonsense'])(
  'a lock of PostgreSQL that a killed process has left (%j) keeps no database closed',
  async left => {
    const dataDir = folder()
    await (await openEmbedded({ dataDir })).close()
    writeFileSync(join(dataDir, 'cluster/postmaster.pid'), left)
    const driver = await openEmbedded({ dataDir })

    expect(await driver.query('select 1', [])).toEqual([[1]])
    await driver.close()
  },
)

test('a first start from the sources unpacks the migrated database of the build, as the executable does', async () => {
  const built = join(root, 'build', archiveName())
  const isBuilt = existsSync(built)
  const starts = spyOn(PGlite, 'create')
  const dataDir = folder()
  mkdirSync(dataDir)
  await ensureCluster(join(dataDir, 'cluster'))
  const engines = starts.mock.calls.length
  starts.mockRestore()
  const { pending } = await migrationState(await open(dataDir))

  expect([template(), engines]).toEqual(isBuilt ? [built, 0] : [undefined, 1])
  expect(pending).toEqual(isBuilt ? [] : migrations.map(({ tag }) => tag))
})

test('the database of the build is not used with other migrations, nor with other sources of it', async () => {
  const copy = folder()
  for (const path of ['bun.lock', 'drizzle', 'scripts', 'src'])
    cpSync(join(root, path), join(copy, path), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const built = join(copy, 'build', archiveName())
  await Bun.write(built, '')
  const used = async () => {
    const code = `console.log((await import('${copy}/src/db/embedded/cluster-files.ts')).template())`
    const child = Bun.spawn([process.execPath, '-e', code], { stderr: 'inherit' })
    return (await child.stdout.text()).trim()
  }
  const withoutLast = (journal: string) =>
    JSON.stringify({ entries: JSON.parse(journal).entries.slice(0, -1) })
  const longer = (text: string) => `${text}\n`
  const changes: [string, (text: string) => string][] = [
    ['drizzle/0000_init.sql', longer],
    ['drizzle/meta/_journal.json', withoutLast],
    ['bun.lock', longer],
    ['src/db/migrator.ts', longer],
  ]

  for (const [path, change] of changes) {
    const file = join(copy, path)
    const text = readFileSync(file, 'utf8')
    writeFileSync(file, change(text))
    expect([path, await used()]).toEqual([path, 'undefined'])
    writeFileSync(file, text)
  }
  expect(await used()).toBe(built)
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'todo-embedded-'))
  undo.push(() => rmSync(path, { recursive: true, force: true }))
  return join(path, 'data')
}

async function open(dataDir: string, freeBytesMin?: number): Promise<Driver> {
  const driver = await openEmbedded({ dataDir, ...(freeBytesMin !== undefined && { freeBytesMin }) })
  undo.push(() => driver.close())
  return driver
}

/** Another process, running `code` after the imports that it needs. `before`: what a shell does first. */
function program(code: string, { before }: { before?: string } = {}) {
  const source = (name: string) => JSON.stringify(join(import.meta.dir, '../src', name))
  const imports = `
    import { openEmbedded } from ${source('db/embedded/embedded.ts')}
    import { openDataDir } from ${source('config/data-dir.ts')}
    import { DurableFS } from ${source('db/embedded/durable-fs.ts')}
  `
  const shell = before ? ['sh', '-c', `${before}; exec "$@"`, 'sh'] : []
  const child = Bun.spawn([...shell, process.execPath, '-e', imports + code], {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  undo.push(() => child.kill('SIGKILL'))
  return child
}

/** Reads the lines that a process prints, one by one. */
async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n')
    rest = parts.pop()!
    yield* parts
  }
}

/** Looks whether a lock is held without the wait for one that is just being released. */
async function withoutWait<T>(look: () => T | Promise<T>): Promise<T> {
  const { waitMs } = lockLimits
  lockLimits.waitMs = 100
  try {
    return await look()
  } finally {
    lockLimits.waitMs = waitMs
  }
}

test('a second process on the same folder is refused by name, and let in as soon as the first is killed', async () => {
  const dataDir = folder()
  const first = program(
    `openDataDir(${JSON.stringify(dataDir)}); console.log('held'); setInterval(() => {}, 1000)`,
  )
  await lines(first.stdout).next()

  await expect(withoutWait(() => openDataDir(dataDir))).rejects.toThrow(
    `DATA_DIR ${dataDir} is in use by another todo-api process; stop that one, or set DATA_DIR to another folder`,
  )
  first.kill('SIGKILL')
  await first.exited

  openDataDir(dataDir).close()
})

test('a folder whose process is just ending is waited for', async () => {
  const dataDir = folder()
  const first = program(
    `openDataDir(${JSON.stringify(dataDir)}); console.log('held'); process.stdin.once('data', () => process.exit())`,
  )
  await lines(first.stdout).next()
  // The write is on its way when this process, which waits without a turn of its event loop, begins to ask.
  first.stdin.write('end')
  await first.stdin.flush()

  openDataDir(dataDir).close()
})

test('a database whose process is just ending is waited for: its lock may be free already', async () => {
  const [first, next] = [openDataDir(folder()), openDataDir(folder())]
  await first.claim(import.meta.path)
  const claimed = next.claim(import.meta.path)
  await Bun.sleep(50)
  first.close()

  await claimed
  next.close()
})

test('one process cannot open a folder twice', async () => {
  const dataDir = folder()
  const held = openDataDir(dataDir)

  await expect(withoutWait(() => openEmbedded({ dataDir }))).rejects.toThrow('is in use')

  held.close()
})

test('the folder is for its owner only', () => {
  const dataDir = folder()

  prepareDataDir(dataDir)

  expect(statSync(dataDir).mode & 0o777).toBe(0o700)
})

test('a file in the way is reported in one line', () => {
  const dataDir = folder()
  writeFileSync(dataDir, 'not a folder')

  expect(() => openDataDir(dataDir)).toThrow(`DATA_DIR ${dataDir} cannot be used: a file is in the way`)
  expect(() => openDataDir(join(dataDir, 'below'))).toThrow('cannot be used: a file is in the way')
})

test.each([
  ['a folder', (lock: string) => mkdirSync(lock), 'files cannot be made in it'],
  [
    'a letter',
    (lock: string) => writeFileSync(lock, 'Dear Ada'.repeat(99)),
    'its file "lock" is something else',
  ],
])('a lock that is %s is reported in words', (_, make, reason) => {
  const dataDir = folder()
  mkdirSync(dataDir)
  make(join(dataDir, 'lock'))

  expect(() => openDataDir(dataDir)).toThrow(`DATA_DIR ${dataDir} cannot be used: ${reason}`)
})

const isRoot = process.getuid?.() === 0
if (!isRoot) process.stderr.write('\nNOT RUN: the tests of files of another user need root.\n')
test.skipIf(!isRoot)('a lock that another user may only read locks nothing, and is refused', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-embedded-'))
  undo.push(() => rmSync(dataDir, { recursive: true }))
  for (const lock of ['lock', 'secret_key.lock']) writeFileSync(join(dataDir, lock), '', { mode: 0o644 })
  chmodSync(dataDir, 0o777)
  const reason = `DATA_DIR ${dataDir} cannot be used: its lock file may not be written to`
  process.seteuid!(54_321)
  try {
    expect(() => openDataDir(dataDir)).toThrow(reason)
    expect(() => loadSecretKey(dataDir)).toThrow(reason)
  } finally {
    process.seteuid!(0)
  }
})

test.skipIf(!isRoot)('root makes no secret in the folder of another user, and may read the one there', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-embedded-'))
  undo.push(() => rmSync(dataDir, { recursive: true }))
  chownSync(dataDir, 54_321, 54_321)

  expect(() => loadSecretKey(dataDir)).toThrow(`${dataDir} belongs to user 54321, and this is root`)
  expect(readdirSync(dataDir)).toEqual([])
  writeFileSync(join(dataDir, 'secret_key'), 'x'.repeat(32), { mode: 0o600 })
  expect(loadSecretKey(dataDir)).toHaveLength(32)
})

test.skipIf(!isRoot)('root makes no secret beside the database of another user', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-embedded-'))
  undo.push(() => rmSync(dataDir, { recursive: true }))
  mkdirSync(join(dataDir, 'cluster'))
  chownSync(join(dataDir, 'cluster'), 54_321, 54_321)

  expect(() => loadSecretKey(dataDir)).toThrow(`${dataDir}/cluster belongs to user 54321, and this is root`)
  expect(readdirSync(dataDir)).toEqual(['cluster'])
})

test.skipIf(!isRoot)('a secret, or a file, of another user is reported in one line', () => {
  const [dataDir, file] = [mkdtempSync(join(tmpdir(), 'todo-embedded-')), folder()]
  undo.push(() => rmSync(dataDir, { recursive: true }))
  chmodSync(dataDir, 0o777)
  writeFileSync(join(dataDir, 'secret_key'), 'x'.repeat(32), { mode: 0o600 })
  writeFileSync(file, '')
  chownSync(file, 54_321, 54_321)

  process.seteuid!(54_321)
  try {
    expect(() => loadSecretKey(dataDir)).toThrow(`DATA_DIR ${dataDir} cannot be used: permission denied`)
  } finally {
    process.seteuid!(0)
  }
  expect(() => openDataDir(file)).toThrow(`DATA_DIR ${file} cannot be used: a file is in the way`)
})

test('each kind of value comes back as it was', async () => {
  const list = ['a', 'b "c"', 'back\\slash', '{}', ',', '', 'ünï']
  const values = [
    true,
    null,
    2 ** 40,
    '2026-02-03 04:05:06.123456+00',
    list,
    { a: [1, null, 'x'] },
    7,
    'té"xt',
  ]

  const [row] = await driver.query(
    `select $1::bool, $2::text, $3::int8, $4::timestamptz, $5::text[], $6::jsonb, $7::int4, $8::text, 1.5::numeric`,
    values,
  )

  expect(row).toEqual([...values, '1.5'])
  expect(await driver.query('select null::int8, null::text[], null::jsonb, null::timestamptz', [])).toEqual([
    [null, null, null, null],
  ])
})

test('the engine has these settings: what it answers is on disk, and it is small', async () => {
  const settings = {
    TimeZone: 'UTC',
    jit: 'off',
    shared_buffers: '16MB',
    fsync: 'on',
    wal_sync_method: 'fsync',
    synchronous_commit: 'on',
    full_page_writes: 'on',
  }
  const names = Object.keys(settings)
  const rows = await driver.query(`select ${names.map(name => `current_setting('${name}')`).join()}`, [])

  expect([...rows]).toEqual([Object.values(settings)])
})

test('keeps the statements prepared that are to be, each once, and no other', async () => {
  // It begins with none.
  await driver.dedicatedConnection(async () => {})
  const kept = async () => (await driver.query('select count(*)::int from pg_prepared_statements', []))[0]![0]
  for (const text of ['select 1 as once', 'select 1 as twice', 'select 1 as twice'])
    await driver.query(text, [], { prepare: true })
  await driver.query('select 1 as unprepared', [])

  expect(await kept()).toBe(2)
})

test('keeps five hundred statements prepared, those that came last', async () => {
  // It begins with none.
  await driver.dedicatedConnection(async () => {})
  const ask = (i: number) => driver.query(`select ${i}`, [], { prepare: true })
  const answers = []
  for (let i = 0; i < 510; i++) answers.push((await ask(i))[0]![0])
  await expect(driver.query('select nothing', [], { prepare: true })).rejects.toMatchObject({ code: '42703' })
  for (let i = 509; i >= 0; i--) expect(await ask(i)).toEqual([[i]])
  const kept = await driver.query('select statement from pg_prepared_statements', [])

  expect(answers).toEqual(answers.map((_, i) => i))
  expect(kept).toHaveLength(500)
  expect(kept).toContainEqual(['select 0'])
  expect(kept).not.toContainEqual(['select 11'])
})

test('an error carries its SQLSTATE and constraint, and the next statement works', async () => {
  await driver.dedicatedConnection(connection =>
    connection.execute('create table unique_t (a int constraint t_once unique)'),
  )
  const insert = () => driver.query('insert into unique_t values ($1)', [1])
  await insert()

  const error = await insert().catch(error => error)

  expect(error).toMatchObject({ code: '23505', constraint: 't_once' })
  await expect(driver.query('selec 1', [])).rejects.toMatchObject({ code: '42601' })
  await expect(driver.query('insert into unique_t values ($1)', ['x'])).rejects.toMatchObject({
    code: '22P02',
  })
  expect(await driver.query('select count(*) from unique_t', [])).toEqual([[1]])
})

test('an undefined value is refused, as by a server', async () => {
  await expect(driver.query('select $1::text', [undefined])).rejects.toThrow('undefined')

  expect(await driver.query('select $1::text', [null])).toEqual([[null]])
})

test('a session returns the rows of the last statement', async () => {
  const rows = await driver.dedicatedConnection(connection =>
    connection.execute('select 1; select 2 union all select 3'),
  )

  expect(rows).toEqual([[2], [3]])
})

test('a session that fails half-way leaves nothing, whether the script fails or the work does', async () => {
  await driver.dedicatedConnection(connection => connection.execute('create table half_t (a int)'))
  const half = () =>
    driver.dedicatedConnection(connection =>
      connection.execute('begin; insert into half_t values (1); select 1/0; commit'),
    )
  const thrown = () =>
    driver.dedicatedConnection(async connection => {
      await connection.execute('begin; insert into half_t values (2)')
      throw new Error('the work failed')
    })

  await expect(half()).rejects.toMatchObject({ code: '22012' })
  await expect(thrown()).rejects.toThrow('the work failed')
  expect(await driver.query('select count(*) from half_t', [])).toEqual([[0]])
})

test('a query waits while a session runs, is counted, and does not see its settings afterwards', async () => {
  const order: string[] = []
  const statsOf = () => driver.stats!()
  const before = statsOf()
  const session = driver.dedicatedConnection(async connection => {
    await connection.execute(`set application_name = 'session'; begin; create table waited as select 1 as a`)
    await Bun.sleep(50)
    order.push('session')
    await connection.execute('commit')
  })
  const query = driver.query(`select a, current_setting('application_name') from waited`, []).then(rows => {
    order.push('query')
    return rows
  })
  const during = statsOf()

  await session

  expect(await query).toEqual([[1, '']])
  expect(order).toEqual(['session', 'query'])
  const one = { size: 1, opening: 0, away: false }
  expect([before, during, statsOf()]).toEqual([
    { ...one, inUse: 0, idle: 1, waiting: 0 },
    { ...one, inUse: 1, idle: 0, waiting: 1 },
    { ...one, inUse: 0, idle: 1, waiting: 0 },
  ])
})

test('a statement that is known keeps working after a session has changed its table', async () => {
  await driver.dedicatedConnection(connection => connection.execute('create table altered as select 1 as a'))
  const all = () => driver.query('select * from altered', [], { prepare: true })
  expect(await all()).toEqual([[1]])

  await driver.dedicatedConnection(connection =>
    connection.execute(`alter table altered add column b text default 'new'`),
  )

  expect(await all()).toEqual([[1, 'new']])
})

test('the process does other things while many statements wait', async () => {
  let turns = 0
  let isOver = false
  const others = (async () => {
    for (; !isOver; turns++) await new Promise(resolve => setTimeout(resolve))
  })()
  await Promise.all(
    Array.from({ length: 300 }, () => driver.query('select count(*) from generate_series(1, 5000)', [])),
  )
  isOver = true
  await others

  expect(turns).toBeGreaterThan(5)
})

test('statements wait for the process to do other things every five milliseconds, not each of them', async () => {
  const driver = await open(folder())
  const clock = spyOn(performance, 'now')
  const turns = spyOn(globalThis, 'setImmediate')
  const counts: number[] = []
  for (const at of [1e9, 1e9 + 4.9, 1e9 + 5]) {
    clock.mockReturnValue(at)
    for (let i = 0; i < 3; i++) await driver.query('select 1', [])
    counts.push(turns.mock.calls.length)
  }
  for (const spy of [clock, turns]) spy.mockRestore()
  await driver.close()

  expect(counts).toEqual([1, 1, 2])
})

test('closing waits for what is under way, not longer than it may, and leaves no timer', async () => {
  const timers = [spyOn(globalThis, 'setInterval'), spyOn(globalThis, 'clearInterval')] as const
  const driver = await open(folder())
  const end = Promise.withResolvers<void>()
  let isOver = false
  const session = driver
    .dedicatedConnection(() => end.promise)
    .then(() => {
      isOver = true
    })
  await driver.close(0.01)
  const [started, cleared] = timers
  const left = started.mock.results.filter(
    ({ value }) => !cleared.mock.calls.some(([timer]) => timer === value),
  )
  for (const spy of timers) spy.mockRestore()

  expect([isOver, left]).toEqual([false, []])
  end.resolve()
  await session
})

test('closing answers what is under way, then refuses, and can be repeated', async () => {
  const driver = await open(folder())
  const underWay = driver.query('select 1', [])

  await Promise.all([driver.close(), driver.close()])

  expect(await underWay).toEqual([[1]])
  await expect(driver.query('select 1', [])).rejects.toMatchObject({ code: 'unavailable' })
  await expect(driver.dedicatedConnection(async () => {})).rejects.toMatchObject({ code: 'unavailable' })
})

test('rows are there after a restart, and a first start that was cut off is repeated', async () => {
  const dataDir = folder()
  mkdirSync(join(dataDir, 'cluster.new', 'base'), { recursive: true })
  writeFileSync(join(dataDir, 'cluster.new', 'PG_VERSION'), '')
  const first = await open(dataDir)
  await first.dedicatedConnection(connection => connection.execute('create table t as select 42 as a'))
  await first.close()

  const second = await open(dataDir)

  expect(await second.query('select a from t', [])).toEqual([[42]])
  expect(existsSync(join(dataDir, 'cluster.new'))).toBe(false)
})

test('the folder is free when the engine has closed, not before, and after an open that failed', async () => {
  const dataDir = folder()
  const first = await openEmbedded({ dataDir })
  const closing = first.close()
  await Promise.resolve()
  await expect(withoutWait(() => openDataDir(dataDir))).rejects.toThrow('is in use')
  await closing
  openDataDir(dataDir).close()

  const noFileSystem = () => {
    throw new Error('no file system')
  }
  await expect(openEmbedded({ dataDir }, noFileSystem)).rejects.toThrow('no file system')
  openDataDir(dataDir).close()
})

test.each([
  ['global/pg_filenode.map', 'could not open file "global/pg_filenode.map": No such file'],
  ['global/pg_control', 'could not open file "global/pg_control": No such file'],
  ['postgresql.conf', 'could not access the server configuration file'],
])('a database that does not open, without %s, is named, and so is the reason', async (file, reason) => {
  const dataDir = folder()
  const cluster = join(dataDir, 'cluster')
  mkdirSync(dataDir)
  await ensureCluster(cluster)
  rmSync(join(cluster, file))

  await expect(openEmbedded({ dataDir })).rejects.toThrow(
    `the embedded database in ${cluster} does not open: ${reason}`,
  )
})

test('a database that does not open, without a word of the engine, is named, and so is the fault', async () => {
  const dataDir = folder()
  class TooLarge extends DurableFS {
    override init(): never {
      throw new RangeError('Out of memory')
    }
  }

  await expect(openEmbedded({ dataDir }, folder => new TooLarge(folder))).rejects.toThrow(
    `the embedded database in ${dataDir}/cluster does not open: RangeError: Out of memory`,
  )
})

test('a folder without PG_VERSION is left as it is: no new database is made over the files of one', async () => {
  const dataDir = folder()
  const cluster = join(dataDir, 'cluster')
  const first = await openEmbedded({ dataDir })
  await first.query('create table t as select 42 as a', [])
  await first.close()
  renameSync(join(cluster, 'PG_VERSION'), join(dataDir, 'lost'))

  const refusal = `the database in ${cluster} is incomplete (PG_VERSION is missing or damaged): copy it again`
  await expect(openEmbedded({ dataDir })).rejects.toThrow(refusal)
  writeFileSync(join(cluster, 'PG_VERSION'), '')
  await expect(openEmbedded({ dataDir })).rejects.toThrow(refusal)
  renameSync(join(dataDir, 'lost'), join(cluster, 'PG_VERSION'))
  expect(await (await open(dataDir)).query('select a from t', [])).toEqual([[42]])
})

test('DATA_DIR may be a link, and the database in it may not: only its own folder is locked', async () => {
  const [dataDir, link, copy] = [folder(), folder(), folder()]
  mkdirSync(dataDir)
  symlinkSync(dataDir, link)
  const driver = await open(link)
  await expect(withoutWait(() => openEmbedded({ dataDir }))).rejects.toThrow(
    'in use by another todo-api process',
  )
  await driver.close()

  mkdirSync(copy)
  symlinkSync(join(dataDir, 'cluster'), join(copy, 'cluster'))
  await expect(openEmbedded({ dataDir: copy })).rejects.toThrow('cluster is a link')
})

const isLinux = process.platform === 'linux'
if (!isLinux) process.stderr.write('\nNOT RUN: the test of databases with two locks needs Linux.\n')
test.skipIf(!isLinux)('a database is opened once, with a new lock file or under another name', async () => {
  const [dataDir, other] = [folder(), folder()]
  const driver = await open(dataDir)
  // As a second mount of the folder: the same file.
  mkdirSync(join(other, 'cluster'), { recursive: true })
  linkSync(join(dataDir, 'cluster/PG_VERSION'), join(other, 'cluster/PG_VERSION'))
  rmSync(join(dataDir, 'lock'))

  for (const path of [dataDir, other])
    await expect(withoutWait(() => openEmbedded({ dataDir: path }))).rejects.toThrow(
      `DATA_DIR ${path} is in use by another todo-api process`,
    )
  await driver.close()
  expect(await (await open(dataDir)).query('select 1', [])).toEqual([[1]])
})

test('every answered row is there after kill -9', async () => {
  const dataDir = folder()
  const writer = program(`
    const driver = await openEmbedded({ dataDir: ${JSON.stringify(dataDir)} })
    await driver.dedicatedConnection(connection => connection.execute('create table t (a int primary key)'))
    for (let a = 1; ; a++) {
      await driver.query('insert into t values ($1)', [a])
      console.log(a)
      await Bun.sleep(0)
    }
  `)
  let answered = 0
  for await (const line of lines(writer.stdout)) {
    answered = Number(line)
    if (answered >= 300) break
  }
  writer.kill('SIGKILL')
  await writer.exited

  const driver = await open(dataDir)

  const [[count, highest] = []] = await driver.query('select count(*), max(a) from t', [])
  expect(count).toBe(highest)
  expect(count).toBeGreaterThanOrEqual(answered)
})

describe('a disk that fails', () => {
  /** Writes, and prints `answered` after that, on a disk that fails meanwhile. */
  const failingWriter = (dataDir: string) => `
    let failing = false
    class FailingFS extends DurableFS {
      patch(module) {
        super.patch(module)
        const { fsync } = module.NODEFS.stream_ops
        module.NODEFS.stream_ops.fsync = stream => {
          if (failing) throw new module.FS.ErrnoError(29)
          return fsync(stream)
        }
      }
    }
    const driver = await openEmbedded({ dataDir: ${JSON.stringify(dataDir)} }, folder => new FailingFS(folder))
    await driver.dedicatedConnection(connection => connection.execute('create table t as select 1 as a'))
    failing = true
    const write = () => driver.query('insert into t values (2)', [])
    for (const _ of [1, 2, 3]) await write().then(() => console.log('answered'), () => {})
  `

  test('ends the process at once with a clear line, and nothing answered is lost', async () => {
    const dataDir = folder()
    const writer = program(failingWriter(dataDir))

    const [code, out, err] = await Promise.all([writer.exited, writer.stdout.text(), writer.stderr.text()])

    expect(err).toMatch(/^todo-api: the embedded database stopped \(could not fsync .*\); .*\n$/)
    expect({ code, out }).toEqual({ code: 1, out: '' })
    const driver = await open(dataDir)
    expect((await driver.query('select a from t order by a', []))[0]).toEqual([1])
  })

  test.each([
    ['on that disk', () => 'exec 2>/dev/full'],
    [
      'a pipe that is full',
      (fifo: string) =>
        `mkfifo ${fifo}; exec 3<>${fifo} 2>${fifo}; dd if=/dev/zero of=${fifo} oflag=nonblock status=none 2>/dev/null`,
    ],
  ])('ends the process, too, when stderr is %s', async (_, redirect) => {
    const dataDir = folder()
    const writer = program(failingWriter(dataDir), { before: redirect(join(dataDir, '../stderr')) })

    expect([await writer.exited, await writer.stdout.text()]).toEqual([1, ''])
  })
})

test('while no more files can be opened writes wait for that alone: no restart is needed', async () => {
  const service = program(
    `
    import { closeSync, openSync } from 'node:fs'
    const driver = await openEmbedded({ dataDir: ${JSON.stringify(folder())} })
    const taken = []
    const run = async statement => {
      try { for (;;) taken.push(openSync('/dev/null', 'r')) } catch {}
      return driver.query(statement, []).then(() => 'done', error => error.cause?.code)
    }
    const attempt = "begin perform pg_read_file('PG_VERSION'); exception when others then end"
    const attempts = count => 'do $$ begin for i in 1..' + count + ' loop ' + attempt + '; end loop; end $$'
    await run(attempts(1))
    // The engine closes a file of its own for it.
    console.log(await run('create table t (a int)'))
    // It has none to close in the end.
    while ((await run("select pg_read_file('PG_VERSION')")) === 'done') {}
    console.log(await run('create table u (a int)'))
    await run(attempts(5000))
    for (const file of taken.splice(0)) closeSync(file)
    await driver.query('create table u (a int)', [])
    console.log('goes on')
    process.exit()
  `,
    { before: 'ulimit -n 300' },
  )
  const [out, err] = await Promise.all([service.stdout.text(), service.stderr.text()])

  expect({ out, err }).toEqual({ out: 'done\n53000\ngoes on\n', err: '' })
})

test.each([
  ['701', 1],
  ['700', 0],
])(
  'a start with STREAMS_MAX=%s warns of 1000 files that may be open %d times',
  async (STREAMS_MAX, times) => {
    const limited = `${folder()}.sh`
    writeFileSync(limited, `#!/bin/sh\nulimit -n 1000; exec ${await executablePath()} "$@"\n`, {
      mode: 0o700,
    })
    const elsewhere = { DATABASE_URL: 'postgres://u:p@127.0.0.1:1/d', DATA_DIR: folder() }
    const api = await startExecutable({ ...elsewhere, STREAMS_MAX }, limited)
    await api.stop()
    const warnings = api.lines.filter(line => line.includes('few files may be open'))

    expect(warnings.map(line => JSON.parse(line))).toMatchObject(
      Array(times).fill({ level: 'warn', files: 1000 }),
    )
  },
)

test('what is kept free is what the documents say', async () => {
  const document = await Bun.file(join(import.meta.dir, '../docs/troubleshooting.md')).text()

  expect(freeBytes(join(home, 'deleted'))).toBe(0)
  expect(document).toContain(`Embedded: less than ${freeBytesMin / 1024 / 1024} MiB are free`)
})

test('when space runs low writes are refused and reads go on', async () => {
  const dataDir = folder()
  const driver = await open(dataDir, Number.MAX_SAFE_INTEGER)
  await driver.dedicatedConnection(connection => connection.execute('create table t as select 1 as a'))

  await expect(driver.query('insert into t values ($1)', [2])).rejects.toMatchObject({ code: 'unavailable' })
  const write = driver.transaction(query => query('insert into t values ($1)', [2]))
  await expect(write).rejects.toMatchObject({ code: 'unavailable' })
  expect(await driver.query('select a from t', [])).toEqual([[1]])
})

test.each([
  ['53100', 'no space for a temporary file'],
  ['58P01', 'a file of the database is missing'],
  ['XX001', 'a page is damaged'],
])('a fault of the database itself (%s, %s) is no fault of the request', async code => {
  const failing = async () =>
    driver.query(`with f as (select as_if($1)) select * from f`, [code]).catch(error => error)
  await driver.dedicatedConnection(connection =>
    connection.execute(`
      create or replace function as_if(code text) returns void language plpgsql
      as $$ begin raise exception 'as if' using errcode = code; end $$`),
  )

  expect(await failing()).toMatchObject({ code: 'unavailable', cause: { code } })
  expect(await driver.query('select 1', [])).toEqual([[1]])
})

describe('a service whose data folder is deleted', () => {
  const start = async () => {
    const dataDir = folder()
    const api = await startExecutable({
      ...{ ENVIRONMENT: 'test', BCRYPT_COST: '4', DATA_DIR: dataDir },
      // For a load balancer: not when the database is lost.
      SHUTDOWN_DELAY_SECONDS: '60',
    })
    undo.push(() => api.process.kill('SIGKILL'))
    const ada = await api.user()
    await api.task(ada)
    return { api, ada, dataDir }
  }
  /** For the answer of a process that is not there any more. */
  const gone = () => ({ status: 0 })
  const logged = (lines: string[]) =>
    lines.map(line => JSON.parse(line)).filter(({ level }) => level === 'error')

  test.each([
    ['writes', (api: Running, ada: User) => api.post('/tasks', { ...ada, json: { title: 'x' } })],
    ['reads', (api: Running, ada: User) => api.get('/tasks?q=milk', ada)],
    ['asks whether it is ready', (api: Running) => api.get('/health/ready')],
  ])('ends, so that it is started again, and answers no 500 to a client that %s', async (_, call) => {
    const { api, ada, dataDir } = await start()
    const statuses: number[] = []
    const isOver = api.process.exited.then(() => true)
    const asking = (async () => {
      while (!(await Promise.race([isOver, Bun.sleep(1)])))
        statuses.push((await call(api, ada).catch(gone)).status)
    })()
    rmSync(dataDir, { recursive: true })

    expect(await api.process.exited).toBe(1)
    await asking
    expect(statuses.filter(status => ![0, 200, 201, 503].includes(status))).toEqual([])
    expect(logged(api.lines)).toMatchObject([
      { msg: 'the folder of the embedded database is gone, or its lock', data_dir: dataDir },
    ])
  })

  test('accepts no write from then on', async () => {
    const { api, ada, dataDir } = await start()
    rmSync(dataDir, { recursive: true })
    const { status } = await api.post('/tasks', { ...ada, json: { title: 'x' } }).catch(gone)

    expect([gone().status, 503]).toContain(status)
    expect(await api.process.exited).toBe(1)
  })
})

test.each([
  ['deleted', (dataDir: string) => rmSync(dataDir, { recursive: true })],
  [
    'replaced by a copy',
    (dataDir: string) => {
      renameSync(dataDir, `${dataDir}.moved`)
      cpSync(`${dataDir}.moved`, dataDir, { recursive: true })
    },
  ],
  [
    'replaced by a file',
    (dataDir: string) => {
      renameSync(dataDir, `${dataDir}.moved`)
      writeFileSync(dataDir, '')
    },
  ],
  [
    'given another database',
    (dataDir: string) => {
      renameSync(join(dataDir, 'cluster'), join(dataDir, 'moved'))
      cpSync(join(dataDir, 'moved'), join(dataDir, 'cluster'), { recursive: true })
    },
  ],
  ['robbed of its lock', (dataDir: string) => rmSync(join(dataDir, 'lock'))],
  [
    'locked again by another',
    (dataDir: string) => {
      rmSync(join(dataDir, 'lock'))
      const lock = lockFile(dataDir)
      undo.push(() => lock.close())
    },
  ],
])('when its folder was %s a database answers nothing more', async (_, change) => {
  const dataDir = folder()
  const timers = spyOn(globalThis, 'setInterval')
  const driver = await open(dataDir)
  const [look] = timers.mock.calls.find(([, everyMs]) => everyMs === 1000)!
  timers.mockRestore()
  look()
  expect(await driver.query('select 1', [])).toEqual([[1]])
  change(dataDir)
  look()

  expect(await driver.lost).toBe('the folder of the embedded database is gone, or its lock')
  await expect(driver.query('select 1', [])).rejects.toMatchObject({ code: 'unavailable' })
})

test('callers take turns, and an address is one caller in all its requests whose user is not known yet', async () => {
  const turns: string[] = []
  const ask = (caller: string) =>
    withTimeBudget(
      async () => {
        if (!isIP(caller)) setCaller(caller)
        await driver.query('select 1', [])
        turns.push(caller)
      },
      () => (isIP(caller) ? caller : '203.0.113.9'),
    )
  const [one, other] = ['203.0.113.1', '203.0.113.2']
  await Promise.all([one, one, one, one, 'bob', 'bob', other, 'bob', 'eve'].map(ask))

  expect(turns).toEqual([one, 'bob', other, 'eve', one, 'bob', one, 'bob', one])
})

test('what a request asks for is refused when it has no turn in time, and the own work of the service waits', async () => {
  await driver.query('create table late_t (a text)', [])
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const held = driver.dedicatedConnection(() => released)
  /** As if it had been asked for 20 ms before its time is over. */
  const late = <T>(ask: () => T): T => {
    const now = performance.now()
    const clock = spyOn(performance, 'now').mockReturnValue(now)
    clock.mockReturnValueOnce(now + 20 - budgetMs)
    const answer = ask()
    clock.mockRestore()
    return answer
  }
  const insert = (query: Query, who: string) => query('insert into late_t values ($1)', [who])
  const request = <T>(work: () => Promise<T>) => withTimeBudget(work, () => '203.0.113.1')
  const own = [
    late(() => insert(driver.query, 'service')),
    // It has the whole time from then on.
    late(() => driver.transaction(query => Bun.sleep(30).then(() => insert(query, 'its transaction')))),
  ]
  const asked = [
    late(() => request(() => insert(driver.query, 'statement'))),
    late(() => request(() => driver.transaction(query => insert(query, 'transaction')))),
  ]

  const refused = { status: 'rejected', reason: { code: 'unavailable' } }
  expect(await Promise.allSettled(asked)).toMatchObject([refused, refused])
  expect(driver.stats!()).toMatchObject({ inUse: 1, waiting: 2 })
  release()
  await Promise.all([held, ...own])
  expect(await driver.query('select a from late_t', [])).toEqual([['service'], ['its transaction']])
})

test('a transaction has what is left of its request’s time, the wait for its turn included', async () => {
  const outcomeOf = (work: Promise<unknown>) =>
    work.then(
      () => 'answered',
      error => error.code,
    )
  const begun = performance.now()
  const outcomes = ['ada', 'bob'].map(caller =>
    withTimeBudget(
      () => outcomeOf(driver.transaction(() => Bun.sleep(1200))),
      () => caller,
    ),
  )

  expect(await Promise.all(outcomes)).toEqual(['answered', 'unavailable'])
  expect(performance.now() - begun).toBeLessThan(2300)
})

test('statements that write are told apart from those that only read', () => {
  const reads = [
    'select updated_at from t',
    ' with a as (select 1) select * from a',
    'show server_version',
    'EXPLAIN SELECT 1',
    'values (1)',
  ]
  const writes = [
    'insert into t values (1)',
    'with a as (delete from t returning *) select * from a',
    'WITH a AS (UPDATE t SET b = 1 RETURNING *) SELECT * FROM a',
    'vacuum',
    "select nextval('s')",
    "select setval('s', 1)",
    'select 1 as a into t',
  ]

  expect(reads.filter(text => !onlyReads(text))).toEqual([])
  expect(writes.filter(onlyReads)).toEqual([])
})

test('a change makes the next round of maintenance vacuum', async () => {
  const timers = spyOn(globalThis, 'setInterval')
  const driver = await open(folder())
  const [everyMinute] = timers.mock.calls.find(([, ms]) => ms === 60_000)!
  timers.mockRestore()
  const dead = async () =>
    (await driver.query(`select n_dead_tup from pg_stat_user_tables where relname = 'kept'`, []))[0]![0]
  await driver.query('create table kept as select a, 0 as n from generate_series(1, 500) a', [])
  await driver.query('update kept set n = 1', [])
  await driver.query('select pg_stat_force_next_flush()', [])
  expect(await dead()).toBe(500)

  await (everyMinute as () => Promise<void>)()

  expect(await dead()).toBe(0)
})

test('maintenance removes dead rows and renews the row estimates of the planner', async () => {
  await driver.dedicatedConnection(connection =>
    connection.execute('create table untidy as select a from generate_series(1, 5000) a'),
  )
  await driver.query('delete from untidy where a > 1000', [])
  await driver.query('select pg_stat_force_next_flush()', [])

  await runMaintenance(statement => driver.dedicatedConnection(connection => connection.execute(statement)))

  const [[rows, dead] = []] = await driver.query(
    `select reltuples::int, n_dead_tup from pg_class join pg_stat_user_tables on relid = pg_class.oid
     where pg_class.relname = 'untidy'`,
    [],
  )
  expect([rows, dead]).toEqual([1000, 0])
})

test('a stop writes nothing into a folder that has taken the place of its own', async () => {
  const dataDir = folder()
  const driver = await open(dataDir)
  await driver.query('create table t as select 1 as a', [])
  renameSync(dataDir, `${dataDir}.moved`)
  cpSync(`${dataDir}.moved`, dataDir, { recursive: true })
  const files = () =>
    (readdirSync(dataDir, { recursive: true }) as string[])
      .filter(name => statSync(join(dataDir, name)).isFile())
      .sort()
      .map(name => `${name} ${Bun.hash(readFileSync(join(dataDir, name)))}`)
  const before = files()

  await driver.close()

  expect(files()).toEqual(before)
})
