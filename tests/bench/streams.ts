import { drive } from './load.ts'
import { cpuSeconds, privateMegabytes, residentMegabytes } from './measure.ts'
import { table } from './report.ts'
import { seed, signedIn, type User } from './seed.ts'
import { type Server, startService } from './servers.ts'

interface StreamsOptions {
  executable: string
  newDatabase: (name: string) => Promise<string>
  postgresPid: number
  settings: Record<string, string>
  /** How many streams one process holds. */
  streams: number
  /** Of how many users; a user has ten at most. */
  users: number
  quick: boolean
  say: (text: string) => void
}

/** What a process costs while nothing happens, and how fast it answers reads. */
interface Rest {
  when: string
  resident: number
  own: number
  /** Of one core, in percent. */
  cpu: number
  postgresCpu: number
  p50: number
  p99: number
}

/** What many idle streams cost a process, and how soon a change reaches a stream on it and on another one. */
export async function measureStreams(options: StreamsOptions) {
  const { executable, newDatabase, settings, streams, quick, say } = options
  const url = await newDatabase('streams')
  const all = { STREAMS_MAX: String(streams + 10), ...settings }
  const [holder, other] = await Promise.all(
    ['one', 'other'].map(name => startService(executable, url, all, name)),
  )
  try {
    for (const { url } of [holder!, other!])
      while (!(await fetch(`${url}/health/ready`)).ok) await Bun.sleep(50)
    await seed(url, { users: options.users + 1, tasksOf: '20' })
    const [writer, ...users] = await signedIn(url, { users: options.users + 1 })
    const reads = users.slice(0, 1000).map(({ token, tasks }) => get(`/tasks/${tasks[0]}`, token))
    await drive(holder!.url, reads, quick ? 2 : 10)

    const rest = [await measureRest('no streams', holder!, reads, options)]
    say(`opening ${streams.toLocaleString('en')} streams of ${users.length.toLocaleString('en')} users`)
    const sockets = await openAll(holder!, users, streams)
    rest.push(await measureRest('with streams', holder!, reads, options))
    say('changes')
    const count = quick ? 20 : 200
    const latencies = [
      { where: 'the same process', ...(await measureLatency(holder!, holder!, writer!, count)) },
      { where: 'another replica', ...(await measureLatency(holder!, other!, writer!, count)) },
    ]
    for (const socket of sockets) socket.end()
    console.log(show(rest, latencies))
    return { kind: 'streams', at: new Date().toISOString(), streams, users: users.length, rest, latencies }
  } finally {
    await Promise.all([holder!.stop(), other!.stop()])
  }
}

const get = (path: string, token: string) => ({
  method: 'GET',
  path: `/api/v1${path}`,
  headers: { authorization: `Bearer ${token}` },
})

async function measureRest(
  when: string,
  { url, pid }: Server,
  reads: ReturnType<typeof get>[],
  { postgresPid, quick }: StreamsOptions,
): Promise<Rest> {
  await Bun.sleep(quick ? 1000 : 10_000)
  const seconds = quick ? 5 : 30
  const before = [pid!, postgresPid].map(each => cpuSeconds(each))
  await Bun.sleep(seconds * 1000)
  const [cpu, postgresCpu] = [pid!, postgresPid].map(
    (each, i) => ((cpuSeconds(each) - before[i]!) / seconds) * 100,
  )
  const [resident, own] = [residentMegabytes(pid!), privateMegabytes(pid!)]
  const { p50, p99 } = await drive(url, reads, quick ? 2 : 10, 4)
  return { when, resident, own, cpu: cpu!, postgresCpu: postgresCpu!, p50, p99 }
}

/** Opens streams a hundred at a time; resolves when each has had its first event. */
async function openAll({ url }: Server, users: User[], count: number) {
  const { hostname, port } = new URL(url)
  const sockets: Bun.Socket<{ text: string }>[] = []
  let greeted = 0
  for (let i = 0; i < count; i++) {
    const { token } = users[i % users.length]!
    const { path, headers } = get('/tasks/events', token)
    const socket = await Bun.connect({
      hostname,
      port: Number(port),
      data: { text: '' },
      socket: {
        open: socket =>
          void socket.write(
            `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${headers.authorization}\r\n\r\n`,
          ),
        data(socket, bytes) {
          if (socket.data.text === 'greeted') return
          socket.data.text += bytes.toString()
          if (!socket.data.text.startsWith('HTTP/1.1 200')) throw new Error(socket.data.text)
          if (!socket.data.text.includes('event: hello')) return
          socket.data.text = 'greeted'
          greeted++
        },
      },
    })
    sockets.push(socket)
    while (sockets.length - greeted > 100) await Bun.sleep(1)
  }
  while (greeted < count) await Bun.sleep(10)
  return sockets
}

/** Milliseconds from sending a write to its event in a stream, and from its answer. */
async function measureLatency(reader: Server, writer: Server, { token }: User, count: number) {
  const { path, headers } = get('/tasks/events', token)
  const abort = new AbortController()
  const stream = await fetch(`${reader.url}${path}`, { headers, signal: abort.signal })
  const arrivedAt = new Map<string, number>()
  const reading = (async () => {
    let text = ''
    const decoder = new TextDecoder()
    for await (const bytes of stream.body as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>) {
      text += decoder.decode(bytes, { stream: true })
      for (const [, id] of text.matchAll(/"id":"([^"]+)"/g))
        arrivedAt.set(id!, arrivedAt.get(id!) ?? performance.now())
      text = text.slice(text.lastIndexOf('\n\n') + 2)
    }
  })().catch(() => {})
  const sinceSent: number[] = []
  for (let i = 0; i < count; i++) {
    const sentAt = performance.now()
    const answer = await fetch(`${writer.url}/api/v1/tasks`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: '{"title":"Buy milk"}',
    })
    const { id } = (await answer.json()) as { id: string }
    while (!arrivedAt.has(id)) await Bun.sleep(1)
    sinceSent.push(arrivedAt.get(id)! - sentAt)
    await Bun.sleep(60 + Math.random() * 200)
  }
  abort.abort()
  await reading
  sinceSent.sort((a, b) => a - b)
  const quantile = (q: number) => sinceSent[Math.min(count - 1, Math.floor(count * q))]!
  return { p50: quantile(0.5), p99: quantile(0.99), max: sinceSent.at(-1)! }
}

function show(rest: Rest[], latencies: { where: string; p50: number; p99: number; max: number }[]): string {
  const memory = table([
    ['one process', 'resident MB', 'private MB', 'CPU %', 'PG CPU %', 'read p50 ms', 'read p99 ms'],
    ...rest.map(({ when, resident, own, cpu, postgresCpu, p50, p99 }) => [
      when,
      resident.toFixed(0),
      own.toFixed(0),
      cpu.toFixed(1),
      postgresCpu.toFixed(1),
      p50.toFixed(2),
      p99.toFixed(2),
    ]),
  ])
  const changes = table([
    ['a change on', 'p50 ms', 'p99 ms', 'max ms'],
    ...latencies.map(({ where, p50, p99, max }) => [where, p50.toFixed(1), p99.toFixed(1), max.toFixed(1)]),
  ])
  return `${memory}\n\n${changes}`
}
