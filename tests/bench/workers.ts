import { availableParallelism } from 'node:os'
import { type Contest, compare, type Result } from './compare.ts'
import { cpuSeconds, descendants, privateMegabytes, residentMegabytes } from './measure.ts'
import { showComparison, table } from './report.ts'

/** What one process of the service used while the works were measured, the warm-up included. */
interface Usage {
  process: string
  cpu: number
  resident: number
  own: number
}

interface Held {
  postgres: string
  results: Result[]
  usage: Usage[]
}

/**
 * The works for servers that differ in WORKERS, in turn: with PostgreSQL on all cores, and held to one where `taskset`
 * can do that. A server that is not asked does next to nothing.
 */
export async function measureWorkers(contest: Contest): Promise<Held[]> {
  const all = `0-${availableParallelism() - 1}`
  const found = [await measureHeld('all cores', contest)]
  if (!Bun.which('taskset')) {
    contest.say('PostgreSQL on one core: left out, because taskset is not on this machine')
    return found
  }
  hold(contest.postgresPid, '0')
  try {
    found.push(await measureHeld('one core', contest))
  } finally {
    hold(contest.postgresPid, all)
  }
  return found
}

async function measureHeld(postgres: string, contest: Contest): Promise<Held> {
  contest.say(`PostgreSQL on ${postgres}`)
  const processes = processesOf(contest)
  const before = processes.map(({ pid }) => cpuSeconds(pid, [pid]))
  const results = await compare(contest)
  const usage = processes.map(({ process, pid }, i) => ({
    process,
    cpu: cpuSeconds(pid, [pid]) - before[i]!,
    resident: residentMegabytes(pid, [pid]),
    own: privateMegabytes(pid, [pid]),
  }))
  console.log(`## PostgreSQL on ${postgres}\n\n${showComparison(results)}\n${showUsage(usage)}\n`)
  return { postgres, results, usage }
}

/** All of PostgreSQL's processes; those that it starts later inherit their cores. */
function hold(pid: number, cores: string) {
  for (const each of [pid, ...descendants(pid)]) {
    Bun.spawnSync(['taskset', '--all-tasks', '--cpu-list', '--pid', cores, String(each)])
  }
}

function processesOf({ servers }: Contest) {
  return servers.flatMap(({ name, pid }) => {
    const workers = descendants(pid!)
    return [
      { process: workers.length > 0 ? `${name}: supervisor` : name, pid: pid! },
      ...workers.map((worker, i) => ({ process: `${name}: worker ${i + 1}`, pid: worker })),
    ]
  })
}

const showUsage = (usage: Usage[]) =>
  table([
    ['process', 'CPU s', 'MB (private)'],
    ...usage.map(({ process, cpu, resident, own }) => [
      process,
      cpu.toFixed(2),
      `${resident.toFixed(0)} (${own.toFixed(0)})`,
    ]),
  ])
