/**
 * `bun tests/bench/backups.ts [--tasks 20000] [--seconds 20] [--clients 4]`: what a verified backup costs the requests of
 * the service that it is taken from: durations of reads without one, and while one follows the other.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { clusterBytes } from '../../src/db/embedded/copy.ts'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import type { User } from '../support/harness.ts'

const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: '20000' },
    seconds: { type: 'string', default: '20' },
    clients: { type: 'string', default: '4' },
  },
})
const [tasks, seconds, clients] = [values.tasks, values.seconds, values.clients].map(Number) as [
  number,
  number,
  number,
]

const folder = mkdtempSync(join(tmpdir(), 'todo-api-backup-cost-'))
const dataDir = join(folder, 'data')

async function fill(api: Running, user: User) {
  for (let made = 0; made < tasks; made += 100) {
    const operations = Array.from({ length: 100 }, (_, i) => ({
      op: 'create',
      task: { title: `Task ${made + i}`, description: 'What is to be done. '.repeat(10), tags: ['home'] },
    }))
    const { status } = await api.post('/tasks/batch', { token: user.token, json: { operations } })
    if (status !== 200) throw new Error(`the batch answered ${status}`)
  }
}

/** The durations of reads by several clients, one after the other each, and a write of each now and then. */
async function read(api: Running, user: User, forSeconds: number): Promise<number[]> {
  const { token } = user
  const durations: number[] = []
  const end = performance.now() + forSeconds * 1000
  const client = async () => {
    for (let n = 0; performance.now() < end; n++) {
      if (n % 20 === 0) await api.post('/tasks', { token, json: { title: 'one more' } })
      const begun = performance.now()
      const { status } = await api.get('/tasks?limit=20', { token })
      durations.push(performance.now() - begun)
      if (status !== 200) throw new Error(`a read answered ${status}`)
      // As a client that shows what it reads: without it the service is as busy as it can be.
      await Bun.sleep(5)
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  return durations.sort((a, b) => a - b)
}

const quantile = (sorted: number[], share: number) => sorted[Math.floor(sorted.length * share)]!

function show(name: string, durations: number[]) {
  const [p50, p99, max] = [quantile(durations, 0.5), quantile(durations, 0.99), durations.at(-1)!]
  process.stdout.write(
    `${name.padEnd(16)} ${durations.length} reads, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, longest ${max.toFixed(0)} ms\n`,
  )
  return p99
}

/** The period is shorter than a backup: one follows the other. */
const start = (every: object) => startExecutable({ ENVIRONMENT: 'test', DATA_DIR: dataDir, ...every })

try {
  let api = await start({})
  await untilReady(api)
  const user = await api.user('ada@example.com', 'correct horse')
  await fill(api, user)
  process.stdout.write(
    `${tasks} tasks, ${Math.round(clusterBytes(join(dataDir, 'cluster')) / 1e6)} MB; ${clients} clients\n`,
  )
  await read(api, user, 3)
  const without = show('without backups', await read(api, user, seconds))
  await api.stop()

  api = await start({ BACKUP_EVERY: '1s' })
  await untilReady(api)
  await read(api, user, 3)
  const during = show('during backups', await read(api, user, seconds))
  const made = api.lines.map(line => JSON.parse(line)).filter(({ msg }) => msg === 'backup made')
  await api.stop()
  const took = made.map(event => event.seconds.toFixed(1)).join(', ')
  process.stdout.write(
    `p99 × ${(during / without).toFixed(2)}; ${made.length} backups, which took ${took} s\n`,
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
