import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Env } from '../src/config/config.ts'
import { createDb } from '../src/db/drizzle.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { createFirstUser } from '../src/modules/auth/new-user.ts'
import { createPasswords } from '../src/modules/auth/password-hash.ts'
import { createLog } from '../src/telemetry/log.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { serviceWithMeetings } from './support/meet.ts'
import { until } from './support/until.ts'
import { expectError } from './support/wire.ts'

const root = join(import.meta.dir, '..')
const password = 'correct horse battery'

/** The environment of the service in a compose file; secrets come from a folder of the test's. */
async function environmentOf(file: string, secrets: string): Promise<Env> {
  const { services } = Bun.YAML.parse(await Bun.file(join(root, file)).text()) as {
    services: Record<string, { environment: Env }>
  }
  const entries = Object.entries(services['todo-api']!.environment).map(([name, value]) => [
    name,
    value!.replace('/run/secrets', secrets).replace(/\$\{FIRST_USER_EMAIL:.*\}/, 'ada@example.com'),
  ])
  return Object.fromEntries(entries)
}

const created = (services: Running[]) =>
  services.flatMap(({ lines }) => lines.filter(line => line.includes('created the first user')))

const signIn = (service: Running, username: string) =>
  service.post('/auth/login', { form: { username, password } })

describe.each(['postgres', 'embedded'] as const)('the first user (%s)', kind => {
  let place: Place
  let settings: Env
  beforeAll(async () => {
    place = await newPlace(kind)
    writeFileSync(join(place.folder, 'first_user_password'), `${password}\n`)
    settings = { ...place.env, ...(await environmentOf('deploy/compose.first-user.yaml', place.folder)) }
  }, 60_000)
  afterAll(() => place?.remove())

  /** Returns the service when it has stopped, with every line of its log. */
  async function withService(env: Env, run: (service: Running) => Promise<void>): Promise<Running> {
    const service = await startExecutable(env)
    try {
      await untilReady(service)
      await run(service)
    } finally {
      await service.stop()
    }
    return service
  }

  test('of deploy/compose.first-user.yaml is there as soon as the service is ready, and said once', async () => {
    const service = await withService(settings, async service => {
      expect((await signIn(service, 'Ada@Example.com')).status).toBe(200)
    })

    expect(created([service])).toHaveLength(1)
    expect(service.lines.join()).not.toMatch(/correct horse|ada@/i)
  })

  test('is made only while there is none', async () => {
    const service = await withService({ ...settings, FIRST_USER_EMAIL: 'eve@example.com' }, async service => {
      expect((await signIn(service, 'eve@example.com')).status).toBe(401)
      expect((await signIn(service, 'ada@example.com')).status).toBe(200)
    })

    expect(created([service])).toEqual([])
  })

  test('is the only one while registration is closed, until the operator creates another', async () => {
    await withService(settings, async service => {
      const json = { email: 'bob@example.com', password }
      for (const address of ['/api/v1/auth/register', '/api/auth/register']) {
        for (const sent of [{ json }, { json: {} }, { raw: '{"email":' }, {}])
          expectError(
            await service.post(service.url + address, sent),
            403,
            'registration_closed',
            'Registration is closed',
          )
      }
      const { info } = (await service.get(`${service.url}/openapi.json`)).body
      expect(info.description).toContain('Registration is closed')
      expect(info.description).not.toContain('/auth/register')

      const command = await runCommand(['user', 'create', 'bob@example.com'], {
        env: settings,
        stdin: password,
      })

      expect([command.exitCode, command.stderr]).toEqual([0, 'created user bob@example.com\n'])
      expect((await signIn(service, 'bob@example.com')).status).toBe(200)
    })
  })
})

describe('creations of the first user that meet', () => {
  const { api, meeting } = serviceWithMeetings()

  test('make one user, wait for no reader, and later ones hash no password', async () => {
    const log = createLog({ level: 'error', pretty: false, write: () => {} })
    const bothHash = Promise.withResolvers<void>()
    let hashes = 0
    const passwords = createPasswords({ cost: 4, atOnce: 1, waiting: 0 })
    const hash = async () => {
      if (++hashes === 2) bothHash.resolve()
      await bothHash.promise
      return 'a hash'
    }
    const create = (email: string) =>
      createFirstUser(
        { db: createDb(api.driver), passwords: { ...passwords, hash }, log },
        { email, password },
      )

    await meeting.sql.begin(async sql => {
      await sql`select 1 from users`
      await Promise.all([create('ada@example.com'), create('bob@example.com')])
    })
    await create('eve@example.com')

    expect(await api.sql('select count(*)::int from users', [])).toEqual([[1]])
    expect(hashes).toBe(2)
  })

  test('wait for a registration that is under way, and are none after it', async () => {
    await api.sql('delete from users', [])
    const parts = {
      db: createDb(api.driver),
      passwords: createPasswords({ cost: 4, atOnce: 1, waiting: 0 }),
      log: createLog({ level: 'error', pretty: false, write: () => {} }),
    }

    await meeting.meet(
      sql => sql`
        insert into users (id, email, normalized_email, password_hash)
        values (${Bun.randomUUIDv7()}, 'ada@example.com', 'ada@example.com', 'a hash')`,
      [() => createFirstUser(parts, { email: 'bob@example.com', password })],
    )

    expect(await api.sql('select email from users', [])).toEqual([['ada@example.com']])
  })
})

test('a locked table delays the first user, and the service is not ready before', async () => {
  const place = await newPlace('postgres')
  const other = openPostgres({ url: place.env.DATABASE_URL!, poolSize: 1 })
  const env = { ...place.env, FIRST_USER_EMAIL: 'ada@example.com', FIRST_USER_PASSWORD: password }
  let service: Running | undefined
  try {
    const waiting = await other.dedicatedConnection(async ({ execute }) => {
      await execute('begin; lock table users in exclusive mode')
      const starting = await startExecutable(env)
      service = starting
      await until(() => starting.lines.some(line => line.includes('waiting for the database')))
      expect((await starting.get(`${starting.url}/health/ready`)).body.detail).toBe('the service is starting')
      return starting
    })
    await untilReady(waiting)

    expect((await signIn(waiting, 'ada@example.com')).status).toBe(200)
  } finally {
    await service?.stop()
    await other.close()
    await place.remove()
  }
}, 60_000)

test('replicas that start at once make one first user, even of different settings', async () => {
  const place = await newPlace('postgres')
  const replicas: Running[] = []
  try {
    const settingsOf = (name: string): Env => ({
      ...place.env,
      FIRST_USER_EMAIL: `${name}@example.com`,
      FIRST_USER_PASSWORD: password,
    })
    replicas.push(
      ...(await Promise.all(['ada', 'bob', 'eve'].map(name => startExecutable(settingsOf(name))))),
    )
    await Promise.all(replicas.map(untilReady))

    const { stdout } = await runCommand(['user', 'list'], { env: place.env })
    // Then every line of the log is there.
    await Promise.all(replicas.map(replica => replica.stop()))

    expect(created(replicas)).toHaveLength(1)
    expect(stdout.trim().split('\n')).toHaveLength(1)
    const { id } = JSON.parse(stdout)
    expect(JSON.parse(created(replicas)[0]!)).toMatchObject({ user_id: id })
  } finally {
    for (const replica of replicas) replica.process.kill()
    await place.remove()
  }
}, 60_000)
