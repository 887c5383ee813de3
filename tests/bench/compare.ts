import { type Call, connections, drive } from './load.ts'
import { countInstructions, cpuSeconds, residentMegabytes } from './measure.ts'
import { tidy, type User } from './seed.ts'
import type { Server } from './servers.ts'
import type { Work } from './works.ts'

/** The most that a slow server is warmed, in milliseconds. */
const warmUpMsMax = 60_000

export interface Contest {
  servers: Server[]
  works: Work[]
  users: User[]
  databases: string[]
  postgresPid: number
  rounds: number
  seconds: number
  /** Requests of each kind to each server before a figure counts. */
  warmUp: number
  instructions: boolean
  say: (text: string) => void
}

/** One server's figures in one round. CPU and instructions are for one request. */
export interface Round {
  perSecond: number
  /** Milliseconds. */
  p50: number
  p99: number
  /** Microseconds. */
  serverCpu: number
  postgresCpu: number
  /** Thousands; absent where the processor's counters cannot be read. */
  serverInstructions?: number
  postgresInstructions?: number
  errors: number
}

export interface Result {
  work: string
  says: string
  entries: { server: string; rounds: Round[]; residentMegabytes: number }[]
}

/** Each work in turn; within it the servers in turn, round after round, so that all meet the same weather. */
export async function compare(contest: Contest): Promise<Result[]> {
  const results: Result[] = []
  for (const work of contest.works) results.push(await compareAt(work, contest))
  return results
}

async function compareAt(work: Work, contest: Contest): Promise<Result> {
  const { servers, rounds, say } = contest
  const able: { server: Server; calls: Call[] }[] = []
  let expected: unknown
  for (const server of servers.filter(server => work.only?.(server) ?? true)) {
    const calls = await work.calls(server, contest.users)
    const content = calls[0] && (await answerTo(server, calls[0]))
    if (content === undefined) continue
    expected ??= content
    if (work.sameAnswers && !Bun.deepEquals(content, expected)) {
      say(`${server.name} is left out: its answer is not that of ${servers[0]!.name}`)
    } else able.push({ server, calls })
  }
  say(
    `${new Date().toTimeString().slice(0, 8)} ${work.name}: ${able.map(({ server }) => server.name).join(', ') || 'no server can do this yet'}`,
  )
  const at = work.connections ?? connections

  const measured = new Map(able.map(({ server }) => [server, [] as Round[]]))
  for (const { server, calls } of able) {
    const needed = work.warmUp ?? contest.warmUp
    for (let done = 0, until = Date.now() + warmUpMsMax; done < needed && Date.now() < until; )
      done += (await drive(server.url, calls, 2, at)).requests
  }
  for (let round = 0; round < rounds; round++) {
    if (work.writes) for (const url of contest.databases) await tidy(url)
    for (const { server, calls } of able)
      measured.get(server)!.push(await oneRound(server, calls, at, contest))
  }
  if (work.writes) for (const url of contest.databases) await tidy(url)

  const entries = able.map(({ server }) => ({
    server: server.name,
    rounds: measured.get(server)!,
    residentMegabytes: server.pid ? residentMegabytes(server.pid) : Number.NaN,
  }))
  return { work: work.name, says: work.says, entries }
}

async function oneRound({ url, pid }: Server, calls: Call[], at: number, contest: Contest): Promise<Round> {
  const { postgresPid, seconds, instructions } = contest
  const counters = instructions ? [pid, postgresPid].map(each => each && countInstructions(each)) : []
  const before = [pid ? cpuSeconds(pid) : Number.NaN, cpuSeconds(postgresPid)]
  const outcome = await drive(url, calls, seconds, at)
  const after = [pid ? cpuSeconds(pid) : Number.NaN, cpuSeconds(postgresPid)]
  const counted = await Promise.all(counters.map(counter => (counter ? counter.stop() : Number.NaN)))
  const { requests, p50, p99, errors } = outcome
  const each = (total: number, unit: number) => (total / requests) * unit
  return {
    perSecond: requests / outcome.seconds,
    p50,
    p99,
    serverCpu: each(after[0]! - before[0]!, 1e6),
    postgresCpu: each(after[1]! - before[1]!, 1e6),
    ...(instructions && {
      serverInstructions: each(counted[0]!, 1e-3),
      postgresInstructions: each(counted[1]!, 1e-3),
    }),
    errors,
  }
}

/** What a server says, with moments as moments, however it writes them; `undefined` when it cannot do it. */
async function answerTo({ url }: Server, { method, path, headers = {}, body }: Call): Promise<unknown> {
  const answer = await fetch(url + path, {
    method,
    headers,
    ...(body && { body: body.replace('########', '00000000') }),
  })
  const text = await answer.text()
  const isMoment = /^\d{4}-\d\d-\d\dT/
  return answer.ok
    ? JSON.parse(text, (_, value) =>
        typeof value === 'string' && isMoment.test(value) ? Date.parse(value) : value,
      )
    : undefined
}
