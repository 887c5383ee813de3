import postgres from 'postgres'
import type { Answer, Client, User } from './harness.ts'
import { createRecovery, stopwatch } from './stopwatch.ts'

/** A service, and its process when it is not this one: what it waits for a processor is no lateness. */
type Served = Client & { process?: { pid: number } }

const watch = ({ process }: Served) => stopwatch(...(process ? [process.pid] : []))

/** What traffic saw. Times are milliseconds. */
export interface Seen {
  answered: number
  refused: number
  /** The slowest answer, refusals included. */
  slowest: number
  /** Whatever was neither a success nor a refusal in the documented shape, and resets of the connection. */
  faults: string[]
  /** A create that was answered with 201: the title, which is its key as well, and the task's id. */
  created: Map<string, string>
  /** A create whose 503 said "not known". */
  unknown: Map<string, User>
  /** By a task's id: the last change that was answered, and those that may have happened, or may happen later. */
  changed: Map<string, { answered: string | null; unknown: Set<string> }>
}

interface Options {
  clients?: number
  /** Which of the calls to make, for a part of the service. */
  only?: 'reads' | 'writes'
}

/** Many clients that make, change and read tasks, each after a short pause, and keep books of every answer. */
export function startTraffic(api: Served, users: User[], { clients = 30, only }: Options = {}) {
  const seen: Seen = {
    answered: 0,
    refused: 0,
    slowest: 0,
    faults: [],
    created: new Map(),
    unknown: new Map(),
    changed: new Map(),
  }
  let ending = false
  const recovery = createRecovery(() => watch(api))
  const began = performance.now()

  /** One call: the answer when it is a success, `undefined` when it was refused as it should be. */
  async function call(
    method: string,
    path: string,
    sent: Parameters<Client['request']>[2],
  ): Promise<Answer | undefined> {
    const elapsed = watch(api)
    try {
      const answer = await api.request(method, path, sent)
      if (answer.status < 300) {
        seen.answered++
        return answer
      }
      if (!isRefusal(answer)) fault(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
      seen.refused++
      recovery.refused(elapsed())
    } catch (error) {
      fault(`${method} ${path}: ${error}`)
    } finally {
      seen.slowest = Math.max(seen.slowest, elapsed())
    }
    // A refused client comes again, though not in the same instant.
    await Bun.sleep(20)
  }

  function fault(text: string) {
    const second = ((performance.now() - began) / 1000).toFixed(1)
    seen.faults.push(`${second} s: ${text}`)
  }

  async function create(user: User): Promise<string | undefined> {
    const key = crypto.randomUUID()
    const headers = { 'idempotency-key': key }
    const answer = await call('POST', '/tasks', { token: user.token, json: { title: key }, headers })
    if (answer) seen.created.set(key, answer.body.id)
    else seen.unknown.set(key, user)
    return answer?.body.id
  }

  async function change({ token }: User, id: string) {
    const book = seen.changed.get(id) ?? { answered: null, unknown: new Set() }
    seen.changed.set(id, book)
    const description = crypto.randomUUID()
    if (await call('PATCH', `/tasks/${id}`, { token, json: { description } })) book.answered = description
    else book.unknown.add(description)
  }

  const loops = Array.from({ length: clients }, async (_, i) => {
    const user = users[i % users.length]!
    const { token } = user
    let own: string | undefined
    for (let turn = i; !ending; turn++) {
      if (only !== 'reads' && turn % 3 === 0) own = (await create(user)) ?? own
      else if (only !== 'reads' && turn % 3 === 1 && own) await change(user, own)
      else if (only !== 'writes') await call('GET', '/tasks?limit=10', { token })
      await Bun.sleep(10)
    }
  })

  return {
    seen,
    /** Waits for `count` more of them, at most 10 s. */
    async more(what: 'answered' | 'refused', count: number) {
      const wanted = seen[what] + count
      const until = performance.now() + 10_000
      while (seen[what] < wanted && performance.now() < until) await Bun.sleep(5)
      if (seen[what] < wanted) fault(`no ${count} ${what} in 10 s`)
    },
    /** Begins now: the milliseconds until the last request began that was refused. */
    measureRecovery: () => recovery.measure(),
    async end(): Promise<Seen> {
      ending = true
      await Promise.all(loops)
      return seen
    },
  }
}

/** 503 with the time to come again, in the one shape of errors. */
export function isRefusal({ status, headers, body }: Answer): boolean {
  return (
    status === 503 &&
    Number(headers.get('retry-after')) > 0 &&
    headers.get('content-type')?.startsWith('application/json') === true &&
    (body?.code === 'unavailable' || body?.code === 'not_ready') &&
    body?.request_id === headers.get('x-request-id')
  )
}

/** Asks every 50 ms whether the service lives and whether it is ready, and notes every answer. */
export function startProbes(api: Served) {
  const faults: string[] = []
  const waits: { for: boolean; elapsed: () => number; took: number }[] = []
  let slowestLive = 0
  let slowestReady = 0
  let ending = false

  async function probe(path: string, take: (answer: Answer, took: number) => void) {
    while (!ending) {
      const elapsed = watch(api)
      try {
        take(await api.get(path), elapsed())
      } catch (error) {
        faults.push(`${path}: ${error}`)
      }
      await Bun.sleep(50)
    }
  }

  const loops = [
    probe('/health/live', ({ status }, took) => {
      if (status !== 200) faults.push(`/health/live: ${status}`)
      slowestLive = Math.max(slowestLive, took)
    }),
    probe('/health/ready', (answer, took) => {
      if (answer.status !== 200 && !isRefusal(answer)) faults.push(`/health/ready: ${answer.status}`)
      slowestReady = Math.max(slowestReady, took)
      for (const wait of waits) {
        if (wait.for === (answer.status === 200)) wait.took = Math.min(wait.took, wait.elapsed())
      }
    }),
  ]

  return {
    /** Begins now: the milliseconds until the service first says that it is ready, or not; `Infinity` if it never does. */
    measureUntil(ready: boolean) {
      const wait = { for: ready, elapsed: watch(api), took: Number.POSITIVE_INFINITY }
      waits.push(wait)
      return () => wait.took
    },
    async end() {
      ending = true
      await Promise.all(loops)
      return { faults, slowestLive, slowestReady }
    },
  }
}

type Sql = (text: string) => Promise<unknown[][]>

/**
 * Compares the books with the database: what is missing of what was answered, and what is there twice. Then asks once
 * more for every create whose outcome is not known: now each must be there once.
 */
export async function auditBooks(api: Client, seen: Seen, sql: Sql): Promise<string[]> {
  const wrong: string[] = []
  const count = async () => {
    const counts = new Map<string, { id: string; count: number }>()
    for (const [title, id, n] of await sql(
      'select title, min(id::text), count(*)::int from tasks group by 1',
    )) {
      counts.set(String(title), { id: String(id), count: Number(n) })
    }
    return counts
  }

  const before = await count()
  for (const [title, id] of seen.created) {
    const found = before.get(title)
    if (found?.count !== 1 || found.id !== id) wrong.push(`create ${id}: there ${found?.count ?? 0} times`)
  }
  for (const title of seen.unknown.keys()) {
    if ((before.get(title)?.count ?? 0) > 1) wrong.push(`create ${title}: there more than once`)
  }

  const descriptions = new Map(
    (await sql('select id::text, description from tasks')) as [string, string | null][],
  )
  for (const [id, { answered, unknown }] of seen.changed) {
    const found = descriptions.get(id) ?? null
    if (found !== answered && !unknown.has(found ?? '')) wrong.push(`task ${id}: not as it was left`)
  }

  for (const [title, { token }] of seen.unknown) {
    const headers = { 'idempotency-key': title }
    const { status } = await api.post('/tasks', { token, json: { title }, headers })
    if (status !== 201) wrong.push(`repeated create ${title}: ${status}`)
  }
  const after = await count()
  for (const title of seen.unknown.keys()) {
    if (after.get(title)?.count !== 1)
      wrong.push(`repeated create ${title}: there ${after.get(title)?.count} times`)
  }
  return wrong
}

/** The numbers of a report. */
export const figures = ({ answered, refused, slowest, created, unknown }: Seen) => ({
  answered,
  refused,
  slowest,
  created: created.size,
  unknown: unknown.size,
})

/** With OUTAGE_FIGURES set, says what was measured. */
export function report(name: string, values: Record<string, unknown>) {
  if (!process.env.OUTAGE_FIGURES) return
  const round = (_: string, value: unknown) => (typeof value === 'number' ? Math.round(value) : value)
  process.stderr.write(`${name}: ${JSON.stringify(values, round)}\n`)
}

/** Runs a statement in a transaction of another session and leaves it open; returns what ends it. */
export async function holdOpen(url: string, statement: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false })
  await sql.unsafe(`begin; ${statement}`)
  return () => sql.end({ timeout: 0 })
}
