/**
 * `bun scripts/test.ts [options] [arguments of bun test]`: builds the executable, starts a PostgreSQL, runs the tests
 * with both, names what failed, prints `N passed, N failed` as its last line and exits 1 unless tests ran and all of them
 * passed. Without a file among the arguments, three files run at a time, and then, one by one, those that find answers late
 * when another file keeps the machine busy.
 *
 * - `--no-build`: the executable is only built if a test needs it and it is older than the sources.
 * - `--fast`: only the test files that start no program but a few lines of Bun, cut no power and measure no time, and a
 *   fifth of the random cases (tests/support/effort.ts); no build.
 * - `--check`: types, lint and format too; each of the two counts like a test.
 *
 * With TEST_PGBOUNCER=1 the services under test reach their databases through a PgBouncer that pools transactions.
 * A run of `bun test` ends after 30 minutes, or TEST_MINUTES_MAX: `expect(promise).rejects` waits in a way that stops the
 * time limits of Bun's tests.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { Glob } from 'bun'
import { startPgBouncer } from '../tests/support/pgbouncer.ts'
import { type PostgresServer, startPostgresServer } from '../tests/support/postgres-server.ts'

const root = join(import.meta.dir, '..')
/** For tests that set none of their own: Bun's 5 s are short for a start of the service on a busy machine. */
const testMillisecondsMax = 30_000
const runMinutesMax = Number(process.env.TEST_MINUTES_MAX ?? 30)

/** What a slow test file imports or calls: a browser, the program, a server of its own, a power cut. */
const isSlow = new RegExp(
  [
    String.raw`support/(chromium|command|executable|fault-proxy|pgbouncer|postgres-server|power-cut-fs|recipes|standby)\.ts`,
    String.raw`Bun\.spawn(Sync)?\((?!\s*\[\s*process\.execPath)`,
  ].join('|'),
)

/** What a test file imports that measures how soon an answer comes. */
const isTimed = /support\/(traffic|stopwatch)\.ts|'\.\/stage\.ts'/

/**
 * Those whose bounds only hold on a machine that does nothing else. The others hold at a load of ten, because a stopwatch
 * leaves out the waits for a processor. Alone, they would mostly let the machine wait.
 */
const alone = new Set(['faults', 'outage'])

/** More than the cores of a small machine: most files also wait. */
const threeAtATime = ['--parallel=3', '--no-isolate']
/** Unlike without options, Bun prints the name of a file before its tests. */
const oneByOne = ['--parallel=1', '--no-isolate']

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
    ? [[...threeAtATime, ...rest, ...files(isFast)]]
    : rest.length > 0
      ? [[...oneByOne, ...rest]]
      : allFiles()
  if (has('--fast')) {
    process.env.TEST_EFFORT ??= '0.2'
    console.log(
      `${files(isFast).length} of ${files(() => true).length} test files, a fifth of the random cases`,
    )
  }
  const checking: Promise<Result> | Result = has('--check')
    ? check()
    : { passed: 0, failures: [], skipped: 0 }
  const server = await startPostgresServer({ keepsCluster: true })
  try {
    const built = has('--no-build') || has('--fast') || (await run([join(import.meta.dir, 'build.ts')])) === 0
    const total = await checking
    if (!built) total.failures.push('the build')
    for (const args of built ? runs : []) {
      if (interrupted) break
      const result = await test(server, args)
      total.passed += result.passed
      total.failures.push(...result.failures)
      total.skipped += result.skipped
    }
    if (interrupted) return 128 + constants.signals[interrupted]
    for (const failure of total.failures) console.log(`failed: ${failure}`)
    const { passed, failures, skipped } = total
    console.log(`${passed} passed, ${failures.length} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
    return failures.length > 0 ? 1 : 0
  } finally {
    await server.close()
  }
}

function isFast(content: string): boolean {
  return !isSlow.test(content) && !isTimed.test(content)
}

/** The test files whose content and path are so. */
function files(isWanted: (content: string, path: string) => boolean): string[] {
  return [...new Glob('tests/**/*.test.ts').scanSync({ cwd: root })]
    .filter(path => !path.includes('node_modules') && isWanted(readFileSync(join(root, path), 'utf8'), path))
    .sort()
}

function allFiles(): string[][] {
  const isAlone = (path: string) => alone.has(basename(path, '.test.ts'))
  return [
    [...threeAtATime, ...files((_, path) => !isAlone(path))],
    [...oneByOne, ...files((_, path) => isAlone(path))],
  ]
}

interface Result {
  passed: number
  /** What failed, by name. */
  failures: string[]
  skipped: number
}

async function check(): Promise<Result> {
  const result: Result = { passed: 0, failures: [], skipped: 0 }
  for (const [name, command] of Object.entries(checks)) {
    const isWell = (await run(command)) === 0
    console.log(`(${isWell ? 'pass' : 'fail'}) ${name}`)
    if (isWell) result.passed++
    else result.failures.push(name)
  }
  return result
}

async function test(server: PostgresServer, args: string[]): Promise<Result> {
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
      TEST_POSTGRES_CLUSTER: server.unstarted,
      TMPDIR: temporary,
      ...(proxy && { TEST_PROXY_PORT: String(proxy.port) }),
    },
  )
  await proxy?.stop()
  const result = readReport(report)
  if (exitCode === undefined) {
    const limit = `${runMinutesMax} minutes (TEST_MINUTES_MAX)`
    result.failures.push(`bun test did not end within ${limit}: see the last file above`)
  }
  // A file that does not load is not in the report, and neither is a run without any test: the exit code tells.
  else if (exitCode !== 0 && result.failures.length === 0)
    result.failures.push(`bun test: exit code ${exitCode}`)
  return result
}

/** Runs Bun with these arguments, showing what it prints; its exit code, or undefined if it did not end in time. */
async function run(args: string[], env: Record<string, string> = {}): Promise<number | undefined> {
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  running.add(child)
  let isLate = false
  const timer = setTimeout(async () => {
    isLate = true
    // First the processes that run the test files: Bun then names the files.
    await Bun.spawn(['pkill', '-KILL', '-P', String(child.pid)]).exited
    await Bun.sleep(1000)
    child.kill('SIGKILL')
  }, runMinutesMax * 60_000)
  const exitCode = await child.exited
  clearTimeout(timer)
  running.delete(child)
  return isLate ? undefined : exitCode
}

/** What a JUnit report says: the totals stand in its first element, names and messages at each test that failed. */
function readReport(path: string): Result {
  const report = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const attribute = (element: string, name: string) =>
    unescapeXml(element.match(new RegExp(`\\b${name}="([^"]*)"`))?.[1] ?? '')
  const totals = report.match(/<testsuites [^>]*/)?.[0] ?? ''
  const count = (name: string) => Number(attribute(totals, name))
  const failures = report.matchAll(/<testcase ([^>]*)>\s*<failure ([^>]*)>/g)
  return {
    passed: count('tests') - count('failures') - count('skipped'),
    failures: [...failures].map(([, test = '', failure = '']) => {
      const [file, suite, name] = ['file', 'classname', 'name'].map(part => attribute(test, part))
      return `${file} > ${suite ? `${suite} > ` : ''}${name}: ${attribute(failure, 'message').trimEnd()}`
    }),
    skipped: count('skipped'),
  }
}

function unescapeXml(text: string): string {
  const characters: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
  return text.replace(/&(?:#(\d+)|(\w+));/g, (whole, code?: string, name?: string) =>
    code ? String.fromCodePoint(Number(code)) : (characters[name ?? ''] ?? whole),
  )
}
