import { expect, spyOn, test } from 'bun:test'
import { existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createProgress, print, printable, printRows } from '../src/cli/terminal.ts'
import { welcome } from '../src/cli/welcome.ts'
import { type Env, parseConfig } from '../src/config/config.ts'
import { executablePath } from './support/executable.ts'
import { client } from './support/harness.ts'
import { privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const columns = 100

interface Terminal {
  url: string
  folder: string
  /** Waits until a text is shown. */
  see(text: string): Promise<unknown>
}

/** Starts the service at a terminal, in an empty folder, until `work` is done, and then presses Ctrl+C. */
async function atTerminal(env: Env, work: (terminal: Terminal) => Promise<void>) {
  // A short path: the lines that name it must fit.
  const folder = mkdtempSync(join(realpathSync('/tmp'), 'todo-api-'))
  let shown = ''
  const decoder = new TextDecoder()
  const data = (_: unknown, bytes: Uint8Array) => {
    shown += decoder.decode(bytes, { stream: true })
  }
  const child = Bun.spawn([await executablePath()], {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: '0', TERM: 'xterm', ...env },
    terminal: { cols: columns, rows: 40, data },
  })
  const url = () => shown.match(/http:\/\/127\.0\.0\.1:\d+/)?.[0]
  try {
    await until(() => url() !== undefined || child.exitCode !== null)
    await work({ url: url()!, folder, see: text => until(() => shown.includes(text)) })
    child.terminal!.write('\x03')
    const exitCode = await child.exited
    await until(() => shown.includes('stopped'))
    return { exitCode, shown, lines: shown.split(/\r?\n/), folder }
  } finally {
    child.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

test('a start at a terminal shows what a user needs, in lines that fit, and Ctrl+C stops it', async () => {
  const { exitCode, lines, shown, folder } = await atTerminal({}, async ({ url, folder, see }) => {
    const api = client(url)
    while ((await api.get('/health/ready')).status !== 200) await Bun.sleep(20)
    const ada = await api.user()
    const task = await api.task(ada)
    await api.get(`/tasks/${task.id}`, { token: ada.token })
    await api.get('/tasks/changes', { token: ada.token, headers: { 'x-request-id': 'x'.repeat(128) } })
    expect(existsSync(join(folder, 'data/secret_key'))).toBe(true)
    // The terminal shows the ^C where it is typed.
    await see('/tasks/changes')
  })
  const url = shown.match(/http:\/\/127\.0\.0\.1:\d+/)![0]

  expect(exitCode).toBe(0)
  for (const line of [
    `  API      ${url}/api/v1`,
    `  Docs     ${url}/docs`,
    `  Data     ${folder}/data, with an embedded PostgreSQL`,
    `  Secret   ${folder}/data/secret_key, generated; it signs the tokens`,
    '  Origins  http://localhost:3000, and any port of localhost and 127.0.0.1 may call from a browser',
    '  Stop     Ctrl+C',
  ]) {
    expect(lines).toContain(line)
  }
  expect(shown).toMatch(/^[\d:]{8} GET {4}\/api\/v1\/tasks\/:id {11}200 {1,8}\d+\.\d ms {2}[\da-f-]{36}\r?$/m)
  expect(shown).toMatch(/^[\d:]{8} GET {4}\/api\/v1\/tasks\/changes .* x+…\r?$/m)
  expect(lines.filter(line => line.length > columns)).toEqual([])
  // Neither the machine's lines nor the same twice.
  expect(shown).not.toMatch(/\{"|listening/)
  expect(shown).not.toContain('\x1b')
}, 60_000)

test('a start at a terminal names the PostgreSQL server, and neither user nor password', async () => {
  const database = await privateDatabase()
  const address = new URL(database.url)
  const env = { DATABASE_URL: database.url, SECRET_KEY: Bun.randomUUIDv7() + Bun.randomUUIDv7() }
  const { shown } = await atTerminal(
    { ...env, FRONTEND_URL: 'https://app.example.com', ENVIRONMENT: 'production' },
    async () => {},
  )
  await database.drop()

  const name = address.pathname.slice(1)
  expect(shown).toContain(
    `  Data     PostgreSQL at ${address.hostname}:${address.port}, database ${name}\r\n`,
  )
  expect(shown).toContain('  Secret   set by SECRET_KEY\r\n')
  expect(shown).toContain('  Origins  https://app.example.com may call from a browser\r\n')
  expect(shown).not.toContain(env.SECRET_KEY)
  expect(shown).not.toMatch(/postgres:\/\/|@/)
}, 60_000)

test.each([
  [{ DATABASE_URL: 'postgres://u:geheim@h1:1,h2/todo' }, 'PostgreSQL at h1:1, h2:5432, database todo'],
  [{ DATABASE_URL: 'postgres:///todo?host=/run/postgresql' }, 'PostgreSQL at /run/postgresql, database todo'],
  [{ DATABASE_URL: 'postgres://u:geheim@h' }, 'PostgreSQL at h:5432'],
  [{ DATA_DIR: '/a\x1b[2J' }, '/a\ufffd[2J, with an embedded PostgreSQL'],
])('a start at a terminal with %p names the place of the data', (env, shown) => {
  expect(welcome(parseConfig(env), 'http://h/').split('\n')).toContain(`  Data     ${shown}`)
})

test.each([
  [undefined, '30 rows, 30/s', '1,000 rows, 833/s', '1,000 rows, 500/s'],
  [2000, '30 of 2,000 rows, 30/s', '1,000 of 2,000 rows, 833/s', '1,000 of 2,000 rows, 500/s'],
])(
  'work of more than a second shows its progress in one line, five times a second, until its end (of %p)',
  (total, ...shown) => {
    let written = ''
    let now = 0
    const clock = spyOn(performance, 'now').mockImplementation(() => now)
    const output = spyOn(process.stderr, 'write').mockImplementation((text: string | Uint8Array) => {
      written += text
      return true
    })
    const { isTTY } = process.stderr
    const work = (isTerminal: boolean) => {
      process.stderr.isTTY = isTerminal
      now = 0
      written = ''
      {
        using progress = createProgress(total)
        for (const [count, time] of [
          [10, 999],
          [20, 1000],
          [920, 1199],
          [50, 1200],
        ] as const) {
          now = time
          progress.add(count)
        }
        progress.say('skipped one')
        now = 2000
        progress.add(0)
      }
      return written
    }
    try {
      const line = '\r\x1b[K'
      const before = `${line}${shown[0]}${line}${shown[1]}`
      expect(work(true)).toBe(`${before}${line}skipped one\n${line}${shown[2]}${line}`)
      expect(work(false)).toBe('skipped one\n')
    } finally {
      process.stderr.isTTY = isTTY
      clock.mockRestore()
      output.mockRestore()
    }
  },
)

test('foreign text is shown in one line, without what a terminal obeys', () => {
  expect(printable('Ada\x1b[2J\r\n\u202e\u2028é牛🎉')).toBe('Ada\ufffd[2J\ufffd\ufffd\ufffd\ufffdé牛🎉')
})

test('a result that cannot be written is a failure', async () => {
  const full = Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
  const output = spyOn(process.stdout, 'write').mockImplementation(((
    _: string,
    done: (error: Error) => void,
  ) => done(full)) as typeof process.stdout.write)
  const outcomes = [print('x'), printRows(true, [{}], {}), printRows(false, [{}], { A: () => 'a' })]
  const settled = await Promise.allSettled(outcomes)
  output.mockRestore()

  expect(settled).toEqual(outcomes.map(() => ({ status: 'rejected', reason: full })))
})

test('a table is aligned by what a terminal shows of a text', async () => {
  let shown = ''
  const output = spyOn(process.stdout, 'write').mockImplementation(((text: string, done: () => void) => {
    shown += text
    done()
  }) as typeof process.stdout.write)
  const rows = ['ada', '牛牛牛', 'e\u0301'].map(name => ({ name, tasks: '1' }))
  await printRows(false, rows, { NAME: row => row.name, TASKS: row => row.tasks }).finally(() =>
    output.mockRestore(),
  )

  expect(shown).toBe('NAME    TASKS\nada     1\n牛牛牛  1\ne\u0301       1\n')
})
