/**
 * `bun run bench`: how fast the service is, held against others that do the same work. docs/performance.md explains.
 *
 *   --quick                short rounds, few of them: to see that it works
 *   --rounds N --seconds N measured rounds for each server and work (5 of 3 s), after --warm-up requests (30,000)
 *   --only A,B             these works or servers only
 *   --peer NAME=WHAT       one more: a command that listens on PORT and reads DATABASE_URL and SECRET_KEY, or an address
 *   --executable NAME=PATH one more build of the service, as if it were a peer
 *   --set NAME=VALUE       a setting of the service
 *   --no-build             the executable in dist/ as it is
 *   --scale                the same page in tables of 10,000 to 10,000,000 tasks instead (--scale-max N)
 *   --start                the start and the memory instead
 *   --workers              WORKERS=2 against WORKERS=1 instead, for lists (--only), also with PostgreSQL held to one core
 *   --streams N            N idle live streams on one process instead (of --stream-users, N), and how soon changes reach them
 *   --json FILE --svg FILE where the figures go
 */
import { writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startPostgresServer } from '../support/postgres-server.ts'
import { until } from '../support/until.ts'
import { type Contest, compare } from './compare.ts'
import { generator } from './load.ts'
import { canCountInstructions, descendants } from './measure.ts'
import { showComparison } from './report.ts'
import { measureScale, scalePicture } from './scale.ts'
import { makePlain, seed, signedIn } from './seed.ts'
import {
  migrate,
  type PeerName,
  peers,
  root,
  type Server,
  startGiven,
  startPeer,
  startService,
} from './servers.ts'
import { measureStart } from './start.ts'
import { measureStreams } from './streams.ts'
import { comparisonPicture } from './svg.ts'
import { measureWorkers } from './workers.ts'
import { works } from './works.ts'

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    'warm-up': { type: 'string' },
    only: { type: 'string' },
    peer: { type: 'string', multiple: true, default: [] },
    executable: { type: 'string', multiple: true, default: [] },
    set: { type: 'string', multiple: true, default: [] },
    'no-build': { type: 'boolean', default: false },
    scale: { type: 'boolean', default: false },
    'scale-max': { type: 'string', default: '10000000' },
    start: { type: 'boolean', default: false },
    workers: { type: 'boolean', default: false },
    streams: { type: 'string' },
    'stream-users': { type: 'string' },
    json: { type: 'string' },
    svg: { type: 'string' },
  },
})

/**
 * As on a server with 4 GB, except that nothing waits for a disk: disks differ more than programs do, and every peer
 * would wait for the same one. Vacuum runs between the rounds and not in them.
 */
const parameters = [
  'shared_buffers=1GB',
  'max_connections=100',
  'synchronous_commit=off',
  'fsync=off',
  'full_page_writes=off',
  'max_wal_size=8GB',
  'checkpoint_timeout=1h',
  'autovacuum=off',
]

const executable = join(root, 'dist/todo-api')
const settings = Object.fromEntries(options.set.map(pair => split(pair)))
const stops: (() => Promise<void>)[] = []

try {
  await main()
} finally {
  for (const stop of stops.reverse()) await stop().catch(error => say(String(error)))
}

async function main() {
  if (
    !options['no-build'] &&
    Bun.spawnSync([process.execPath, 'scripts/build.ts'], { cwd: root, stdio: ['ignore', 2, 2] }).exitCode !==
      0
  ) {
    throw new Error('the build failed')
  }
  const postgres = await startPostgresServer({ parameters })
  stops.push(() => postgres.close())
  const machine = `${availableParallelism()} cores, Bun ${Bun.version}, load by ${generator}`
  say(`${machine}; PostgreSQL with ${parameters.join(', ')}`)
  // Linux then shares the cores between sessions (setsid), not processes: of 100 writes one waits 100 ms for a core.
  const autogroup = await Bun.file('/proc/sys/kernel/sched_autogroup_enabled')
    .text()
    .catch(() => '0')
  if (autogroup.trim() === '1') say('for a true p99 of writes: sysctl kernel.sched_autogroup_enabled=0')

  const postgresPid = postgres.pid()
  const newDatabase = (name: string) => postgres.createDatabase(name)
  if (options.scale) {
    const max = Number(options['scale-max'])
    const figures = await measureScale({ executable, newDatabase, postgresPid, max, settings, say })
    if (options.svg) writeFileSync(options.svg, scalePicture(figures))
    return finish(figures)
  }
  if (options.streams) {
    const streams = Number(options.streams)
    const users = Number(options['stream-users'] ?? streams)
    const { quick } = options
    return finish(
      await measureStreams({ executable, newDatabase, postgresPid, settings, streams, users, quick, say }),
    )
  }
  if (options.start)
    return finish(await measureStart({ executable, newDatabase, settings, quick: options.quick, say }))

  const url = await newDatabase('bench')
  await migrate(executable, url)
  say('seeding 1,000 users with 200 tasks each')
  await seed(url, { users: 1000, tasksOf: '200' })
  const users = await signedIn(url, { users: 1000 })
  const plainUrl = await postgres.createDatabase('bench_plain', 'bench')
  await makePlain(plainUrl)
  const service = await startService(executable, url, settings)
  stops.push(service.stop)
  await until(async () => (await fetch(`${service.url}/health/ready`)).ok)

  const only = options.only?.split(',') ?? (options.workers ? ['list'] : [])
  const wanted = (name: string, among: string[]) =>
    !only.some(one => among.includes(one)) || only.includes(name)
  const servers = options.workers ? [await two(), service] : [service, ...(await others())]
  async function two(): Promise<Server> {
    service.name = 'WORKERS=1'
    const server = await startService(executable, url, { ...settings, WORKERS: '2' }, 'WORKERS=2')
    stops.push(server.stop)
    // The first worker answers at once, the second follows.
    await until(async () => descendants(server.pid!).length === 2)
    await Bun.sleep(1000)
    return server
  }
  async function others(): Promise<Server[]> {
    const found: Server[] = []
    const keep = (server: Server | undefined, name: string) => {
      if (!server) return say(`${name}: its runtime is not on this machine`)
      found.push(server)
      stops.push(server.stop)
    }
    const names = Object.keys(peers) as PeerName[]
    for (const pair of options.executable) {
      const [name, path] = split(pair)
      keep(await startService(path, url, settings, name), name)
    }
    for (const name of names) if (wanted(name, names)) keep(await startPeer(name, plainUrl), name)
    for (const pair of options.peer) {
      const [name, what] = split(pair)
      keep(await startGiven(name, what, plainUrl), name)
    }
    return found
  }

  const workNames = works.map(({ name }) => name)
  const rounds = Number(options.rounds ?? (options.quick ? 2 : 5))
  const seconds = Number(options.seconds ?? (options.quick ? 1 : 3))
  const contest: Contest = {
    servers,
    works: works.filter(({ name }) => wanted(name, workNames)),
    users,
    databases: [url, plainUrl],
    postgresPid,
    rounds,
    seconds,
    warmUp: Number(options['warm-up'] ?? (options.quick ? 1000 : 30_000)),
    instructions: canCountInstructions(),
    say,
  }
  if (!contest.instructions)
    say('instructions: the processor’s counters cannot be read here, so CPU time has to do')
  if (options.workers) {
    const figures = await measureWorkers(contest)
    return finish({ kind: 'workers', at: new Date().toISOString(), machine, rounds, seconds, figures })
  }
  const results = await compare(contest)
  console.log(showComparison(results))
  finish({ kind: 'comparison', at: new Date().toISOString(), machine, parameters, rounds, seconds, results })
  if (options.svg) writeFileSync(options.svg, comparisonPicture(results, machine))
}

function finish(figures: object) {
  if (options.json) writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`)
}

function split(pair: string): [name: string, value: string] {
  const at = pair.indexOf('=')
  return [pair.slice(0, at), pair.slice(at + 1)]
}

function say(text: string) {
  console.error(text)
}
