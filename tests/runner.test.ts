import { afterAll, beforeAll, expect, test } from 'bun:test'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { outcomeOf } from './support/outcome.ts'

let folder: string

const passes = `import { test } from 'bun:test'\ntest('passes', () => {})\n`
/** The name is not in the text of this file: the runner reads it, too, and this one measures nothing. */
const passesWith = (support: string) => `import './support/${support}.ts'\n${passes}`

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'todo-api-runner-'))
})

afterAll(() => rmSync(folder, { recursive: true }))

test('a failed test makes the run fail, is named, and the last line counts every test', async () => {
  const file = testFile(`
    test('passes', () => {})
    test('fails', () => { throw new Error('as it should') })
    describe('a <suite>', () => test('fails, too', () => { throw new Error('"so" & it\\'s') }))
    // Not a test of the suite: the runner is tried with this file, and must count what is skipped.
    test.skip('is skipped', () => {})`)

  const { exitCode, output } = await run([file])

  expect({ exitCode, lines: output.split('\n').slice(-3) }).toEqual({
    exitCode: 1,
    lines: [
      `failed: ${file} > fails: as it should`,
      `failed: ${file} > a <suite> > fails, too: "so" & it's`,
      '1 passed, 2 failed, 1 skipped',
    ],
  })
})

test('tests get the address of a PostgreSQL, and arguments reach bun test', async () => {
  const file = testFile(`
    import postgres from ${JSON.stringify(Bun.resolveSync('postgres', import.meta.dir))}
    test('wanted', async () => {
      const sql = postgres(process.env.TEST_POSTGRES_URL!)
      expect((await sql\`select 1 as one\`)[0]!.one).toBe(1)
      await sql.end()
    })
    test('not wanted', () => { throw new Error('must not run') })`)

  const { exitCode, lastLine } = await run([file, '-t', '^wanted'])

  expect({ exitCode, lastLine }).toEqual({ exitCode: 0, lastLine: '1 passed, 0 failed, 1 skipped' })
})

test('a file that does not load is a failure, and so is a run without tests', async () => {
  const runs = await Promise.all([
    run([testFile(`import './missing.ts'`)]),
    run([join(folder, 'none.test.ts')]),
  ])

  for (const { exitCode, lastLine } of runs) {
    expect({ exitCode, lastLine }).toEqual({ exitCode: 1, lastLine: '0 passed, 1 failed' })
  }
})

test('a run that does not end is ended, and says which file it was at', async () => {
  const hangs = `
    test('passes', () => {})
    test('hangs', () => expect(new Promise(() => {})).rejects.toThrow(), 100)`
  const project = projectWith('')
  cpSync(testFile(hangs), join(project, 'tests/hangs.test.ts'))
  cpSync(testFile(`test('passes', () => {})`), join(project, 'tests/passes.test.ts'))
  const env = { TEST_MINUTES_MAX: '0.05' }

  const [oneByOne, threeAtATime] = await Promise.all([
    run([testFile(hangs)], undefined, undefined, env),
    run(['--fast'], project, undefined, env),
  ])

  const late = 'failed: bun test did not end within 0.05 minutes (TEST_MINUTES_MAX): see the last file above'
  expect(oneByOne.errors).toMatch(/^\S+\.test\.ts:\n\(pass\) passes.*\n$/m)
  expect(oneByOne.output).toEndWith(`${late}\n0 passed, 1 failed`)
  expect(threeAtATime.output).toContain('failed: tests/hangs.test.ts > (worker crashed)')
  expect(threeAtATime.output).toEndWith(`${late}\n2 passed, 2 failed`)
})

test.each([
  ['1', '3 passed, 0 failed', 0],
  ["'one'", '2 passed, 1 failed', 1],
  ['1  ', '2 passed, 1 failed', 1],
])('types, lint and format count like tests (const one: number = %s)', async (value, lastLine, exitCode) => {
  const project = projectWith(`export const one: number = ${value}\n`)
  const file = join(project, 'passes.test.ts')
  writeFileSync(file, `import { test } from 'bun:test'\n\ntest('passes', () => {})\n`)

  expect(await run(['--check', file], project)).toMatchObject({ exitCode, lastLine })
})

test('a fast run leaves out the files that start a program or a browser, or measure time', async () => {
  const project = projectWith('')
  writeFileSync(join(project, 'tests/routes.test.ts'), passes)
  writeFileSync(join(project, 'tests/program.test.ts'), passesWith('executable'))
  writeFileSync(join(project, 'tests/child.test.ts'), `const start = () => Bun.spawn(['true'])\n${passes}`)
  writeFileSync(
    join(project, 'tests/bun.test.ts'),
    `const f = () => Bun.spawn([process.execPath])\n${passes}`,
  )
  writeFileSync(join(project, 'tests/browser.test.ts'), passesWith('chromium'))
  writeFileSync(join(project, 'tests/soon.test.ts'), passesWith('stopwatch'))

  expect(await run(['--fast'], project)).toMatchObject({ exitCode: 0, lastLine: '2 passed, 0 failed' })
})

test('a build that fails is a failure, and no test runs', async () => {
  const project = projectWith('')
  const file = testFile(`test('passes', () => {})`)

  const { exitCode, output } = await run([file], project, [])
  expect({ exitCode, output }).toEqual({ exitCode: 1, output: 'failed: the build\n0 passed, 1 failed' })
})

test('a run without a file runs every file once, also those that run alone', async () => {
  const project = projectWith('')
  writeFileSync(join(project, 'tests/routes.test.ts'), passes)
  writeFileSync(join(project, 'tests/soon.test.ts'), passesWith('stopwatch'))
  writeFileSync(join(project, 'tests/faults.test.ts'), passes)

  expect(await run([], project)).toMatchObject({ exitCode: 0, lastLine: '3 passed, 0 failed' })
})

test('a run that is terminated stops its server and deletes what it wrote', async () => {
  const started = join(folder, 'started')
  const file = testFile(`
    test('never ends', async () => {
      await Bun.write(${JSON.stringify(started)}, process.env.TMPDIR!)
      await Bun.sleep(60_000)
    }, 90_000)`)

  const runner = start([file])
  let temporary = ''
  while (temporary === '') {
    await Bun.sleep(20)
    temporary = existsSync(started) ? await Bun.file(started).text() : ''
  }
  expect(existsSync(temporary)).toBe(true)
  runner.kill('SIGTERM')

  expect(await runner.exited).toBe(128 + 15)
  expect(existsSync(temporary)).toBe(false)
})

function testFile(body: string): string {
  const file = join(folder, `${crypto.randomUUID()}.test.ts`)
  writeFileSync(file, body)
  return file
}

/** A project of one source, with the runner and its settings. */
function projectWith(source: string): string {
  const project = join(folder, crypto.randomUUID())
  const root = join(import.meta.dir, '..')
  for (const path of ['scripts/test.ts', 'tests/support'])
    cpSync(join(root, path), join(project, path), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(project, 'node_modules'))
  const only = (file: string, change: object) => {
    const settings = JSON.parse(readFileSync(join(root, file), 'utf8'))
    writeFileSync(join(project, file), JSON.stringify({ ...settings, ...change }))
  }
  only('tsconfig.json', { include: ['one.ts'] })
  only('biome.json', { files: { includes: ['one.ts'] }, json: { formatter: { enabled: false } } })
  writeFileSync(join(project, 'one.ts'), source)
  return project
}

async function run(args: string[], project?: string, options?: string[], env?: Record<string, string>) {
  const { exitCode, stdout, stderr } = await outcomeOf(start(args, project, options, env))
  const lines = stdout.trimEnd().split('\n')
  return { exitCode, output: lines.join('\n'), lastLine: lines.at(-1), errors: stderr }
}

function start(
  args: string[],
  project = join(import.meta.dir, '..'),
  options = ['--no-build'],
  env: Record<string, string> = {},
) {
  const script = join(project, 'scripts/test.ts')
  return Bun.spawn([process.execPath, script, ...options, ...args], {
    env: { ...process.env, ...env },
    stdout: 'pipe',
    stderr: 'pipe',
  })
}
