import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect, createServer, type Socket } from 'node:net'
import { EventSource } from 'eventsource'
import { type EventReader, openEvents } from './support/event-stream.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { startFaultProxy } from './support/fault-proxy.ts'
import { type Client, client, startService, testSettings, type User } from './support/harness.ts'
import { haproxy, nginx } from './support/load-balancers.ts'
import { type PgBouncer, pgbouncer, startPgBouncer } from './support/pgbouncer.ts'
import { freePort, listenOnFreePort } from './support/ports.ts'
import { stopwatch } from './support/stopwatch.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const isLong = process.env.EVENTS_LONG === '1'
if (!isLong)
  process.stderr.write('\nSHORT: the readers of streams for a few seconds; EVENTS_LONG=1 for a minute.\n')
const balancers = [haproxy, nginx].filter(({ name, isInstalled }) => {
  if (!isInstalled)
    process.stderr.write(`\nNOT RUN: streams through ${name}, because there is none in PATH.\n`)
  return isInstalled
})
if (!pgbouncer) process.stderr.write('\nNOT RUN: streams through PgBouncer, because there is none in PATH.\n')

/** One replica at the database, and one of two processes behind PgBouncer. */
describe('streams on two replicas', () => {
  let database: PrivateDatabase
  let bouncer: PgBouncer | undefined
  let one: Running
  let two: Running
  let ports: number[]

  const startOne = () =>
    startExecutable({ ...testSettings, DATABASE_URL: database.directUrl, PORT: String(ports[0]) })

  beforeAll(async () => {
    database = await privateDatabase()
    bouncer = pgbouncer ? await startPgBouncer(database.directUrl) : undefined
    ports = [await freePort(), await freePort()]
    one = await startOne()
    await untilReady(one)
    two = await startExecutable({
      ...testSettings,
      DATABASE_URL: bouncer?.through(database.directUrl) ?? database.directUrl,
      PORT: String(ports[1]),
      WORKERS: '2',
    })
    await untilReady(two)
    await until(() => two.lines.filter(line => line.includes('"listening"')).length === 2)
  }, 60_000)

  afterAll(async () => {
    await Promise.all([one?.stop(), two?.stop()])
    await bouncer?.stop()
    await database?.drop()
  })

  /** Streams of a user on both processes of `two`. */
  async function onBothWorkers(user: User): Promise<EventReader[]> {
    const streams: EventReader[] = []
    const workers = () =>
      new Set(
        two.lines
          .map(line => JSON.parse(line))
          .filter(({ msg, user_id }) => msg === 'stream began' && user_id === user.id)
          .map(({ worker }) => worker),
      )
    while (workers().size < 2) {
      const stream = await openEvents(two, { ...user, headers: { connection: 'close' } })
      if (stream.status === 200) streams.push(stream)
      await Bun.sleep(150)
    }
    return streams
  }

  test('a change on one reaches every process of the other, and the other way round', async () => {
    const ada = await one.user()
    const streams = [await openEvents(one, ada), ...(await onBothWorkers(ada))]
    await Promise.all(streams.map(stream => stream.receive('hello')))
    for (const api of [one, two]) await api.task(ada)
    await until(() => streams.every(stream => stream.changes().tasks.length === 2))

    for (const stream of streams) {
      expect(stream.changes()).toEqual(streams[0]!.changes())
      await stream.close()
    }
  })

  test('a sign-out on one ends the streams on the other within a second', async () => {
    const ada = await one.user()
    const streams = await onBothWorkers(ada)
    await one.post('/auth/logout', { token: ada.token })
    const elapsed = stopwatch(one.process.pid, two.process.pid)
    const ends = await Promise.all(streams.map(stream => stream.receive('end')))

    expect(ends.map(({ data }) => data)).toEqual(streams.map(() => ({ code: 'invalid_token' })))
    expect(elapsed()).toBeLessThan(1000)
  })

  test.each(balancers)(
    'readers behind $name that are cut off at random miss nothing and get nothing twice, also when a replica is killed',
    async ({ start }) => {
      const front = await freePort()
      const balancer = start(front, ports)
      const proxy = await startCuttingProxy(front)
      const api = client(`http://127.0.0.1:${proxy.port}`)
      await until(async () => (await api.get('/health/ready').catch(() => undefined))?.status === 200)
      const ada = await one.user()
      const readers = Array.from({ length: 4 }, () => startReader(api, ada))
      await until(() => readers.every(reader => reader.isOpen()))

      const writers = Array.from({ length: 8 }, () => startWriter(client(`http://127.0.0.1:${front}`), ada))
      const cutting = setInterval(() => proxy.cutOne(), 400)
      const seconds = isLong ? 60 : 5
      await Bun.sleep((seconds * 1000) / 2)
      one.process.kill('SIGKILL')
      await one.stop()
      await Bun.sleep((seconds * 1000) / 2)
      const made = (await Promise.all(writers.map(writer => writer.stop()))).flat()
      clearInterval(cutting)
      await until(() => readers.every(reader => new Set(reader.ids).size === made.length))

      for (const reader of readers) {
        expect(reader.ids.length).toBe(made.length)
        expect(new Set(reader.ids)).toEqual(new Set(made))
        expect(reader.failures).toEqual([])
        reader.stop()
      }
      expect(made.length).toBeGreaterThan(50)
      expect(proxy.cuts()).toBeGreaterThan(4)
      await Promise.all([proxy.stop(), balancer.stop()])
      one = await startOne()
    },
    120_000,
  )

  test.each(isLong ? balancers : [])(
    'a silent stream stays open through $name',
    async ({ start }) => {
      const front = await freePort()
      const balancer = start(front, ports)
      const ada = await one.user()
      const api = client(`http://127.0.0.1:${front}`)
      await until(async () => (await api.get('/health/ready').catch(() => undefined))?.status === 200)
      const stream = await openEvents(api, ada)
      await Bun.sleep(70_000)
      await one.task(ada)
      await stream.receive('changes')

      expect(stream.events.map(({ event }) => event)).toEqual([
        'hello',
        ...Array(4).fill(': ping'),
        'changes',
      ])
      await stream.close()
      await balancer.stop()
    },
    100_000,
  )
})

test('while the database is away a stream stays open, and it catches up afterwards', async () => {
  const database = await privateDatabase()
  const proxy = await startFaultProxy(Number(new URL(database.directUrl).port))
  const cutOff = await startService('postgres', { DATABASE_URL: proxy.through(database.directUrl) })
  const other = await startService('postgres', { DATABASE_URL: database.directUrl })
  const ada = await cutOff.user()
  const stream = await openEvents(cutOff, ada)
  await stream.receive('hello')

  proxy.receive('refuse')
  proxy.drop()
  await until(async () => (await cutOff.get('/tasks', { token: ada.token })).status === 503)
  await other.task(ada, { title: 'Meanwhile' })
  await Bun.sleep(1500)
  expect(stream.events.map(({ event }) => event)).toEqual(['hello'])
  expect(stream.isOver()).toBe(false)
  proxy.heal()

  expect((await stream.receive('changes')).data.tasks[0].title).toBe('Meanwhile')
  await stream.close()
  await Promise.all([cutOff.stop(), other.stop()])
  await proxy.stop()
  await database.drop()
}, 60_000)

/** npm's `eventsource`, as a program in Node uses it; the ids of the tasks that it received, in order. */
function startReader({ url }: Client, { token }: User) {
  const ids: string[] = []
  const failures: unknown[] = []
  const source = new EventSource(`${url}/api/v1/tasks/events`, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } }),
  })
  let isOpen = false
  source.addEventListener('hello', () => {
    isOpen = true
  })
  source.addEventListener('changes', ({ data }) => {
    for (const task of JSON.parse(data).tasks) ids.push(task.id)
  })
  source.addEventListener('error', error => {
    if (source.readyState === source.CLOSED) failures.push([error.code, error.message])
  })
  return { ids, failures, isOpen: () => isOpen, stop: () => source.close() }
}

/** Makes tasks until it is stopped; a request that was not answered is repeated under the same key. */
function startWriter(api: Client, { token }: User) {
  const made: string[] = []
  let isStopped = false
  async function write() {
    while (!isStopped) {
      const headers = { 'idempotency-key': crypto.randomUUID() }
      const create = () =>
        api.post('/tasks', { token, json: { title: 'Buy milk' }, headers }).catch(() => undefined)
      let answer = await create()
      while (answer?.status !== 201) {
        await Bun.sleep(50)
        answer = await create()
      }
      made.push(answer.body.id)
      await Bun.sleep(Math.random() * 200)
    }
    return made
  }
  const done = write()
  return {
    stop() {
      isStopped = true
      return done
    },
  }
}

/** A TCP proxy that can cut one of its connections, at random. */
async function startCuttingProxy(serverPort: number) {
  const links = new Set<Socket>()
  let cuts = 0
  const listener = createServer(client => {
    const server = connect(serverPort, '127.0.0.1')
    links.add(client)
    client.pipe(server).pipe(client)
    client
      .on('error', () => {})
      .on('close', () => {
        links.delete(client)
        server.destroy()
      })
    server.on('error', () => {}).on('close', () => client.destroy())
  })
  return {
    port: await listenOnFreePort(listener),
    cuts: () => cuts,
    cutOne() {
      const all = [...links]
      const link = all[Math.floor(Math.random() * all.length)]
      if (link) cuts++
      link?.destroy()
    },
    async stop() {
      for (const link of links) link.destroy()
      await new Promise(resolve => listener.close(resolve))
    },
  }
}
