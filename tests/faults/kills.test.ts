import { afterAll, beforeAll, expect, test } from 'bun:test'
import { newPlace, type Place } from '../support/command.ts'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import { testSettings } from '../support/harness.ts'
import { freePort } from '../support/ports.ts'
import { stopwatch } from '../support/stopwatch.ts'
import { type Clients, startClients } from './clients.ts'
import type { Account, TaskBody, TaskRow } from './ledger.ts'
import { createTally } from './tally.ts'

/** FAULT_KILLS=38 kills more often than every run does; FAULT_SEED=… has the clients do the same again. */
const kills = Number(process.env.FAULT_KILLS ?? 2)
const seed = Number(process.env.FAULT_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0])

const tally = createTally()
let place: Place
let port: string
let api: Running
let clients: Clients

beforeAll(async () => {
  place = await newPlace('embedded')
  port = String(await freePort())
  await start()
  clients = await startClients(api, {
    seed,
    users: 4,
    tally,
    stopwatch: () => stopwatch(api.process.pid),
    losesConnections: true,
  })
}, 60_000)
afterAll(async () => {
  process.stdout.write(`\n${tally.report()}\n`)
  await clients?.end()
  await api?.stop()
  await place?.remove()
}, 60_000)

test(
  `${kills} kills of the embedded service lose no acknowledged write (FAULT_SEED=${seed})`,
  async () => {
    const section = tally.begin('the service is killed')
    for (let kill = 0; kill < kills; kill++) {
      expect(await clients.flow(60)).toBe(true)
      api.process.kill('SIGKILL')
      await api.process.exited
      await clients.pause()
      // Only removes what the process left behind.
      await api.stop()
      await start()
      await clients.audit(() => readRows(api, clients.accounts))
      clients.resume()
    }
    expect(section.examples).toEqual([])
  },
  60_000 + kills * 20_000,
)

async function start() {
  api = await startExecutable({ ...testSettings, ...place.env, PORT: port })
  await untilReady(api)
}

/** Every task of every user, as the API lists it. */
async function readRows(api: Running, accounts: Account[]): Promise<TaskRow[]> {
  const all = await Promise.all(
    accounts.map(async account => {
      const form = { username: account.email, password: account.password }
      const token: string = (await api.post('/auth/login', { form })).body.access_token
      const live = await readAll(api, token, '/tasks?limit=200')
      const trash = await readAll(api, token, '/tasks/trash?limit=200')
      return [
        ...live.map((task): TaskRow => ({ ...task, presence: 'live' })),
        ...trash.map((task): TaskRow => ({ ...task, presence: 'trash' })),
      ]
    }),
  )
  return all.flat()
}

async function readAll(api: Running, token: string, first: string): Promise<TaskBody[]> {
  const tasks: TaskBody[] = []
  for (let path: string | undefined = first; path; ) {
    const { body, headers } = await api.get(path, { token })
    tasks.push(...body)
    const next = headers.get('link')?.match(/<([^>]+)>/)?.[1]
    path = next && new URL(next, api.url).href
  }
  return tasks
}
