import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import { join } from 'node:path'
import { newPlace, type Place } from './support/command.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { createFlakyNetwork, createSilentNetwork } from './support/flaky-network.ts'
import { testSettings, type User } from './support/harness.ts'
import { type Random, randomFrom } from './support/random.ts'
import { type Device, engines, type Seen, seen } from './support/sync-engines.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const seedsOnPostgres = Number(process.env.SYNC_SEEDS ?? 20)
/** RxDB has at most 16 collections open. */
const seedsAtOnce = 6
const opsPerDevice = 15

if (!process.env.SYNC_SEEDS) {
  process.stderr.write('NOT RUN: 200 seeds of the sync engines, of which 20 run: set SYNC_SEEDS=200\n')
}

test.each(['rxdb/src/replicate.ts', 'tanstack-db/src/collection.ts'])(
  '%s has less than 80 lines',
  async path => {
    const text = await Bun.file(join(import.meta.dir, '../examples', path)).text()
    expect(text.trimEnd().split('\n').length).toBeLessThan(80)
  },
)

test('all examples listen to the stream in the same way', async () => {
  const texts = ['web', 'rxdb', 'tanstack-db'].map(folder =>
    Bun.file(join(import.meta.dir, '../examples', folder, 'src/live.ts')).text(),
  )
  expect(new Set(await Promise.all(texts)).size).toBe(1)
})

describe.each(Object.entries(engines))('a device with %s', (_name, connect) => {
  let place: Place
  let service: Running
  let user: User
  beforeAll(async () => {
    place = await newPlace('embedded')
    service = await startExecutable(place.env)
    await untilReady(service)
    user = await service.user()
  }, 60_000)
  afterAll(async () => {
    await service?.stop()
    await place?.remove()
  })
  const titles = async (device: Device) => [...(await device.tasks()).values()].map(task => task.title).sort()
  const shows = (device: Device, wanted: string[]) =>
    until(async () => Bun.deepEquals(await titles(device), wanted))

  test('goes on when its connections fall silent, which no one ends', async () => {
    const { setTimeout } = globalThis
    const hurry = spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms?: number) =>
      setTimeout(run, ms === 30_000 ? 1000 : ms)) as typeof setTimeout)
    const network = createSilentNetwork(user.token, service.url)
    const device = await connect('http://service', network.fetch)
    try {
      await service.task(user, { title: 'first' })
      await shows(device, ['first'])
      await until(network.hasStream)
      network.silence()
      await service.task(user, { title: 'second' })
      await shows(device, ['first', 'second'])
    } finally {
      hurry.mockRestore()
      await device.stop()
    }
  }, 60_000)

  test('undoes a change that the service refuses, and goes on with the others', async () => {
    const other = await service.user()
    const send = (request: Request) => {
      const { pathname, search } = new URL(request.url)
      const headers = new Headers(request.headers)
      headers.set('authorization', `Bearer ${other.token}`)
      return fetch(new Request(service.url + pathname + search, request), { headers })
    }
    const device = await connect('http://service', send)
    const add = async (title: string) => {
      const id = crypto.randomUUID()
      await device.add(id, title)
      return id
    }
    try {
      const first = await add('first')
      await until(async () => (await device.tasks()).get(first)!.version > 0)
      await add(' ')
      await device.change(first, { priority: 9 })
      await add('second')
      await service.task(other, { title: 'of another device' })

      await shows(device, ['first', 'of another device', 'second'])
      await until(async () => (await device.tasks()).get(first)!.priority === 0)
      expect((await service.get('/tasks', other)).body).toHaveLength(3)
    } finally {
      await device.stop()
    }
  }, 60_000)

  test('begins again when the service knows neither its cursor nor its token, and sends what waits', async () => {
    let { token } = user
    let isRefused = false
    const send = async (request: Request) => {
      const { pathname, search } = new URL(request.url)
      const headers = new Headers(request.headers)
      headers.set('authorization', `Bearer ${token}`)
      const response = await fetch(new Request(service.url + pathname + search, request), { headers })
      isRefused ||= request.method === 'POST' && response.status === 401
      return response
    }
    const device = await connect('http://service', send)
    try {
      await shows(device, ['first', 'second'])
      // Without the end of its stream, the device has nothing to look at before it sends.
      service.process.kill('SIGKILL')
      await service.process.exited
      await device.add(crypto.randomUUID(), 'made meanwhile')
      service = await startExecutable({ ...place.env, SECRET_KEY: 'another-secret-another-secret-0123' })
      await untilReady(service)
      await until(() => isRefused)
      const { body } = await service.post('/auth/login', {
        form: { username: user.email, password: user.password },
      })
      token = body.access_token
      await service.task({ ...user, token }, { title: 'made elsewhere' })

      await shows(device, ['first', 'made elsewhere', 'made meanwhile', 'second'])
      await until(async () => (await service.get('/tasks', { token })).body.length === 4)
    } finally {
      await device.stop()
    }
  }, 60_000)
})

type Connect = (typeof engines)[keyof typeof engines]

describe.each(['two replicas on PostgreSQL', 'the embedded database'])('with %s', kind => {
  let database: PrivateDatabase | undefined
  const isEmbedded = kind === 'the embedded database'
  const seedsMax = Math.ceil(isEmbedded ? seedsOnPostgres / 3 : seedsOnPostgres)
  let replicas: Running[]
  let settings: Record<string, string>
  beforeAll(async () => {
    database = isEmbedded ? undefined : await privateDatabase()
    settings = { ...testSettings, ...(database && { DATABASE_URL: database.url }) }
    replicas = await Promise.all((isEmbedded ? [1] : [1, 2]).map(() => startExecutable(settings)))
    await Promise.all(replicas.map(untilReady))
  }, 60_000)
  afterAll(async () => {
    await Promise.all(replicas.map(replica => replica.stop()))
    await database?.drop()
  })

  test.each(Object.entries(engines))(
    'two devices with %s and the service have the same tasks in the end, whatever fails meanwhile',
    async (name, connect) => {
      const stats = { tasks: 0, conflicts: 0, lostAnswers: 0 }
      for (let first = 1; first <= seedsMax; first += seedsAtOnce) {
        const seeds = Array.from({ length: Math.min(seedsAtOnce, seedsMax - first + 1) }, (_, i) => first + i)
        await Promise.all([...seeds.map(seed => run(seed, connect, stats)), replaceReplica()])
      }
      process.stderr.write(`${name}: ${JSON.stringify(stats)}\n`)
      expect(stats.tasks).toBeGreaterThan(seedsMax)
      expect(stats.conflicts).toBeGreaterThan(seedsMax / 4)
      expect(stats.lostAnswers).toBeGreaterThan(seedsMax / 4)
    },
    Math.max(60, seedsMax * 5) * 1000,
  )

  /** Kills a replica in the middle of everything; another one takes its place. */
  async function replaceReplica() {
    if (replicas.length === 1) return
    const [killed, other] = replicas as [Running, Running]
    killed.process.kill('SIGKILL')
    await killed.process.exited
    replicas = [other]
    const next = await startExecutable(settings)
    await untilReady(next)
    replicas = [other, next]
  }

  /** A service that is busy with all those writes may refuse at first. */
  async function newUser(): Promise<User> {
    return replicas.at(-1)!.user().catch(newUser)
  }

  async function run(
    seed: number,
    connect: Connect,
    stats: { tasks: number; conflicts: number; lostAnswers: number },
  ) {
    const random = randomFrom(seed)
    const { token } = await newUser()
    const networks = [1, 2].map(() => createFlakyNetwork(random, token, () => replicas.map(({ url }) => url)))
    const devices = await Promise.all(networks.map(network => connect('http://service', network.fetch)))
    try {
      const written = { added: new Set<string>(), removed: new Set<string>() }
      await Promise.all(devices.map((device, i) => use(device, networks[i]!, random, written)))
      for (const network of networks) network.calm()

      let service = new Map<string, Seen>()
      const differences = async () => {
        const { status, body } = await replicas.at(-1)!.get('/tasks?limit=200', { token })
        if (status !== 200) return [`the service answers ${status}`]
        service = new Map(body.map((task: Seen & { id: string }) => [task.id, seen(task)]))
        const found = await Promise.all(devices.map(device => device.tasks()))
        return found.flatMap(tasks => difference(service, tasks))
      }
      let last: string[] = []
      await until(async () => {
        last = await differences()
        return last.length === 0
      }, 60).catch(() => {
        throw new Error(`seed ${seed}: ${last.join('\n')}`)
      })

      // No task that was added is lost, and none that was removed has come back.
      expect([...service.keys()].sort()).toEqual([...written.added.difference(written.removed)].sort())
      stats.tasks += service.size
      for (const network of networks) {
        stats.conflicts += network.stats.conflicts
        stats.lostAnswers += network.stats.lostAnswers
      }
    } finally {
      await Promise.all(devices.map(device => device.stop()))
    }
  }
})

/** What a user does on one device, with times offline. */
async function use(
  device: Device,
  network: ReturnType<typeof createFlakyNetwork>,
  random: Random,
  { added, removed }: { added: Set<string>; removed: Set<string> },
) {
  for (let i = 0; i < opsPerDevice; i++) {
    const known = [...(await device.tasks()).keys()]
    const id = random.pick(known)
    if (known.length === 0 || random.chance(0.25)) {
      const id = crypto.randomUUID()
      added.add(id)
      await device.add(id, `made in step ${i}`)
    } else if (random.chance(0.15)) {
      removed.add(id)
      await device.remove(id)
    } else if (random.chance(0.5)) await device.change(id, { title: `title ${random.below(1000)}` })
    else await device.change(id, { status: random.pick(statuses), priority: random.below(5) })
    if (random.chance(0.3)) network.offline(random.chance(0.4))
    if (random.chance(0.2)) network.dropStreams()
    await Bun.sleep(random.below(60))
  }
}

const statuses = ['pending', 'in_progress', 'completed']
/** The tasks that are not the same in both, for a message. */
const difference = (wanted: Map<string, Seen>, found: Map<string, Seen>) =>
  [...new Set([...wanted.keys(), ...found.keys()])]
    .filter(id => !Bun.deepEquals(wanted.get(id), found.get(id)))
    .map(id => JSON.stringify({ id, wanted: wanted.get(id), found: found.get(id) }))
