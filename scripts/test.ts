/**
 * `bun scripts/test.ts [options] [arguments of bun test]`: builds the executable, starts a PostgreSQL, runs the tests
 * with both, prints `N passed, N failed` as its last line and exits 1 unless tests ran and all of them passed. Without a
 * file among the arguments, two files run at a time, and then those that measure how soon an answer comes, one by one.
 *
 * - `--no-build`: the executable is only built if a test needs it and it is older than the sources.
 * - `--fast`: only the test files that neither start a process nor cut the power; no build.
 * - `--check`: types, lint and format too; each of the two counts like a test.
 *
 * With TEST_PGBOUNCER=1 the services under test reach their databases through a PgBouncer that pools transactions.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { Glob } from 'bun'
import { startPgBouncer } from '../tests/support/pgbouncer.ts'
import { type PostgresServer, startPostgresServer } from '../tests/support/postgres-server.ts'

const root = join(import.meta.dir, '..')
/** For tests that set none of their own: Bun's 5 s are short for a start of the service on a busy machine. */
const testMillisecondsMax = 30_000

/** What a slow test file imports or calls: the executable, a command, a server of its own, a power cut. */
const isSlow = /support\/(executable|command|postgres-server|pgbouncer|standby|power-cut-fs)\.ts|Bun\.spawn/

/** What a test file imports that measures how soon an answer comes. */
const isTimed = /support\/(traffic|stopwatch)\.ts|'\.\/stage\.ts'/

const twoAtATime = ['--parallel=2', '--no-isolate']

const checks = {
  types: [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', '.'],
  'lint and format': [join('node_modules', '@biomejs', 'biome', 'bin', 'biome'), 'check', '.'],
}

const running = new Set<Bun.Subprocess>()
let interrupted: NodeJS.Signals | undefined

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    interrupted = signal
    for (const child of running) child.kill('SIGTERM')
  })
}

process.exitCode = await main(process.argv.slice(2))

async function main(args: string[]): Promise<number> {
  const has = (option: string) => args.includes(option)
  const rest = args.filter(arg => !['--no-build', '--fast', '--check'].includes(arg))
  const runs = has('--fast')
    ? [[...twoAtATime, ...rest, ...files(isFast)]]
    : rest.length > 0
      ? [rest]
      : allFiles()
  const checked = has('--check') ? await check() : { passed: 0, failed: 0 }
  const server = await startPostgresServer()
  try {
    const built = has('--no-build') || has('--fast') || (await run([join(import.meta.dir, 'build.ts')])) === 0
    let { passed, failed } = checked
    let skipped = 0
    if (!built) failed++
    for (const args of built ? runs : []) {
      if (interrupted) break
      const result = await test(server, args)
      passed += result.passed
      failed += result.failed
      skipped += result.skipped
    }
    if (interrupted) return 128 + constants.signals[interrupted]
    console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
    return failed > 0 ? 1 : 0
  } finally {
    await server.close()
  }
}

function isFast(content: string): boolean {
  return !isSlow.test(content)
}

/** The test files whose content is so. */
function files(isWanted: (content: string) => boolean): string[] {
  return [...new Glob('tests/**/*.test.ts').scanSync({ cwd: root })]
    .filter(path => isWanted(readFileSync(join(root, path), 'utf8')))
    .sort()
}

function allFiles(): string[][] {
  return [
    [...twoAtATime, ...files(content => !isTimed.test(content))],
    files(content => isTimed.test(content)),
  ]
}

async function check() {
  const result = { passed: 0, failed: 0 }
  for (const [name, command] of Object.entries(checks)) {
    const isWell = (await run(command)) === 0
    console.log(`(${isWell ? 'pass' : 'fail'}) ${name}`)
    result[isWell ? 'passed' : 'failed']++
  }
  return result
}

async function test(server: PostgresServer, args: string[]) {
  // Inside the server's folder, which goes away however this run ends: no test leaves a file behind.
  const temporary = join(dirname(server.dataDir), 'tmp')
  mkdirSync(temporary, { recursive: true })
  const report = join(temporary, `${crypto.randomUUID()}.xml`)
  const proxy = process.env.TEST_PGBOUNCER ? await startPgBouncer(server.url) : undefined
  const exitCode = await run(
    [
      ...['test', '--no-orphans', `--timeout=${testMillisecondsMax}`],
      ...['--reporter=junit', `--reporter-outfile=${report}`],
      ...args,
    ],
    {
      TEST_POSTGRES_URL: server.url,
      TMPDIR: temporary,
      ...(proxy && { TEST_PROXY_PORT: String(proxy.port) }),
    },
  )
  await proxy?.stop()
  const { tests, failures, skipped } = readReport(report)
  // A file that does not load is not in the report, and neither is a run without any test: the exit code tells.
  const failed = Math.max(failures, exitCode === 0 ? 0 : 1)
  return { passed: tests - failures - skipped, failed, skipped }
}

/** Runs Bun with these arguments, showing what it prints. */
async function run(args: string[], env: Record<string, string> = {}): Promise<number> {
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  running.add(child)
  const exitCode = await child.exited
  running.delete(child)
  return exitCode
}

/** The totals that stand in the first element of a JUnit report. */
function readReport(path: string) {
  const report = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const total = (name: string) =>
    Number(report.match(new RegExp(`<testsuites [^>]*\\b${name}="(\\d+)"`))?.[1] ?? 0)
  return { tests: total('tests'), failures: total('failures'), skipped: total('skipped') }
}
