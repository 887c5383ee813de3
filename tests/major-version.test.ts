import { afterAll, beforeAll, expect, test } from 'bun:test'
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create } from 'tar'
import { exportAll } from '../src/cli/transfer/export.ts'
import type { DedicatedConnection, Driver } from '../src/db/driver.ts'
import { postgresMajor } from '../src/db/embedded/major.ts'
import { migrate } from '../src/db/migrator.ts'
import { openDriver } from '../src/db/open-driver.ts'
import { runCommand } from './support/command.ts'
import { startExecutable, untilReady } from './support/executable.ts'

// In the packages of tests/clients, which `bun run test` installs: an older PGlite, with PostgreSQL 17.
const load = createRequire(join(import.meta.dir, 'clients/package.json'))
const { PGlite } = load('pglite-17') as { PGlite: typeof import('@electric-sql/pglite').PGlite }

const root = mkdtempSync(join(tmpdir(), 'todo-api-major-'))
afterAll(() => rmSync(root, { recursive: true }))

const on = (dataDir: string) => ({ ENVIRONMENT: 'test', BCRYPT_COST: '4', DATA_DIR: dataDir })

/** The data folder of a todo-api with PostgreSQL 17, with the account and the tasks of a new one. */
const old = join(root, 'old')
const exported = join(root, 'export.ndjson')
const password = 'correct horse'
let titles: string[]

beforeAll(async () => {
  const made = join(root, 'made')
  const api = await startExecutable(on(made))
  await untilReady(api)
  const ada = await api.user('ada@example.com', password)
  titles = ['Écrire à "Zoë"', 'Buy milk', 'Trashed']
  for (const title of titles) await api.task(ada, { title, tags: ['home'] })
  const [trashed] = (await api.get('/tasks', { token: ada.token })).body
  await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
  await api.stop()

  // The same rows in an engine of PostgreSQL 17.
  mkdirSync(old, { mode: 0o700 })
  copyFileSync(join(made, 'secret_key'), join(old, 'secret_key'))
  const engine = new PGlite(join(old, 'cluster'))
  const execute = async (script: string) =>
    (await engine.exec(script, { rowMode: 'array' })).at(-1)!.rows as unknown as unknown[][]
  const connection: DedicatedConnection = { execute }
  const driver = {
    query: (text: string) => execute(text),
    dedicatedConnection: <T>(work: (connection: DedicatedConnection) => Promise<T>) => work(connection),
  } as unknown as Driver
  await migrate(driver, [])
  const source = await openDriver({ kind: 'embedded', dataDir: made })
  for (const table of ['users', 'user_versions', 'tasks']) {
    const [[columns, rows] = []] = await source.query(
      `select (select string_agg(quote_ident(column_name), ', ') from information_schema.columns
               where table_schema = 'public' and table_name = '${table}'),
              (select coalesce(json_agg(t), '[]')::text from ${table} t)`,
      [],
    )
    await engine.query(
      `insert into ${table} (${columns}) select ${columns} from json_populate_recordset(null::${table}, $1)`,
      [JSON.parse(String(rows))],
    )
  }
  await source.close()
  // As `backup --verify` of that version wrote it.
  const lines: string[] = []
  await exportAll(driver, { write: async data => void lines.push(String(data)) })
  writeFileSync(exported, lines.join(''))
  await engine.close()
  expect(readFileSync(join(old, 'cluster/PG_VERSION'), 'utf8').trim()).toBe('17')
}, 120_000)

/** A backup that a todo-api with PostgreSQL 17 made. */
function backup(name: string, { withExport = true, spoil = (lines: string) => lines } = {}): string {
  const folder = mkdtempSync(join(root, 'backup-'))
  const header = {
    format: 'todo-api-backup',
    program: '0.0.9',
    postgres: '17',
    made_at: '2026-01-01T00:00:00Z',
  }
  writeFileSync(join(folder, 'backup.json'), JSON.stringify(header))
  cpSync(old, folder, { recursive: true })
  if (withExport) writeFileSync(join(folder, 'export.ndjson'), spoil(readFileSync(exported, 'utf8')))
  const names = ['backup.json', 'secret_key', ...(withExport ? ['export.ndjson'] : []), 'cluster']
  const file = join(root, name)
  create({ file, cwd: folder, gzip: true, sync: true }, names)
  return file
}

test('the major version of the embedded PostgreSQL is the one that it writes', async () => {
  const dataDir = join(root, 'fresh')
  await runCommand(['migrate'], { env: on(dataDir) })

  expect(readFileSync(join(dataDir, 'cluster/PG_VERSION'), 'utf8').trim()).toBe(postgresMajor)
}, 60_000)

test.each([
  [['serve']],
  [['migrate']],
  [['user', 'list']],
  [['export']],
  [['backup', '--verify', join(root, 'x')]],
])(
  '%p leaves a folder of an older PostgreSQL as it is, and names the way',
  async args => {
    const contents = () =>
      readdirSync(join(old, 'cluster'), { recursive: true, withFileTypes: true })
        .filter(entry => entry.isFile())
        .map(entry => [entry.name, Bun.hash(readFileSync(join(entry.parentPath, entry.name)))])
    const before = contents()
    const { exitCode, stderr } = await runCommand(args, { env: { ...on(old), PORT: '0' } })

    expect(exitCode).toBe(1)
    expect(stderr).toMatch(
      /^the database in .* is of PostgreSQL 17, and this todo-api has 18: .*todo-api export FILE.*import FILE.*\n$/,
    )
    expect(contents()).toEqual(before)
  },
  60_000,
)

test('a newer PostgreSQL is left alone, too', async () => {
  const dataDir = join(root, 'newer')
  mkdirSync(join(dataDir, 'cluster'), { recursive: true })
  writeFileSync(join(dataDir, 'cluster/PG_VERSION'), '19\n')
  const { exitCode, stderr } = await runCommand(['migrate'], { env: on(dataDir) })

  expect([exitCode, stderr]).toEqual([
    1,
    expect.stringContaining('is of PostgreSQL 19, and this todo-api has 18: use the newer todo-api'),
  ])
  expect(readdirSync(join(dataDir, 'cluster'))).toEqual(['PG_VERSION'])
}, 60_000)

test('doctor names the way', async () => {
  const { exitCode, stdout } = await runCommand(['doctor'], { env: on(old) })

  expect(exitCode).toBe(1)
  expect(stdout).toMatch(/^fail {2}database .*PostgreSQL 17.*todo-api export FILE/m)
}, 60_000)

test('a backup without an export names the version that made it', async () => {
  const dataDir = join(root, 'target')
  const file = backup('plain.tar.gz', { withExport: false })
  const { exitCode, stderr } = await runCommand(['restore', file], { env: on(dataDir) })

  expect([exitCode, stderr]).toEqual([
    1,
    expect.stringMatching(
      /PostgreSQL 17 .*restore it with todo-api 0\.0\.9 .*todo-api export FILE.*import FILE here\n$/,
    ),
  ])
  expect(readdirSync(dataDir)).toEqual(['lock'])
}, 60_000)

test('a backup with a row that the database refuses is not restored in part', async () => {
  const dataDir = join(root, 'in part')
  const file = backup('spoiled.tar.gz', { spoil: lines => lines.replace('"title":"Buy milk"', '"title":""') })
  const { exitCode, stderr } = await runCommand(['restore', file], { env: on(dataDir) })

  expect([exitCode, stderr]).toEqual([
    1,
    expect.stringMatching(
      /^skipped line \d: .*\n1 rows of the backup cannot be restored; nothing was changed\n$/,
    ),
  ])
  expect(readdirSync(dataDir)).toEqual(['lock'])
}, 60_000)

test('a backup with an export is restored across the major version, also over the old folder', async () => {
  const { exitCode, stderr } = await runCommand(['restore', '--force', backup('full.tar.gz')], {
    env: on(old),
  })
  const aside = readdirSync(old).find(name => name.startsWith('replaced-'))!
  const api = await startExecutable(on(old))
  await untilReady(api)
  const { body } = await api.post('/auth/login', { form: { username: 'ada@example.com', password } })
  const tasks = (await api.get('/tasks', { token: body.access_token })).body as {
    title: string
    tags: string[]
  }[]
  const trash = (await api.get('/tasks/trash', { token: body.access_token })).body as { title: string }[]
  await api.stop()

  expect([exitCode, stderr]).toEqual([
    0,
    expect.stringMatching(/^restored 1 users and 3 tasks into .+\nfrom the export.*users sign in again\n/),
  ])
  expect(tasks.map(({ title }) => title)).toEqual(titles.slice(0, 2).reverse())
  expect(tasks[0]!.tags).toEqual(['home'])
  expect(trash.map(({ title }) => title)).toEqual([titles[2]!])
  expect(readFileSync(join(old, 'cluster/PG_VERSION'), 'utf8').trim()).toBe('18')
  expect(readFileSync(join(old, aside, 'cluster/PG_VERSION'), 'utf8').trim()).toBe('17')
  expect(readdirSync(old)).not.toContain('export.ndjson')
}, 60_000)
