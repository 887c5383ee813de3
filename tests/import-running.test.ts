import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { newPlace, type Place } from './support/command.ts'
import { executablePath, type Running, startExecutable, untilReady } from './support/executable.ts'
import { exportOf, taskLine, tombstoneLine, userLine } from './support/export-lines.ts'
import { until } from './support/until.ts'

describe.each([
  ['postgres', 20_000],
  ['embedded', 3_000],
] as const)('an import into a running service (%s, %i tasks)', (kind, count) => {
  let place: Place
  let api: Running
  beforeAll(async () => {
    place = await newPlace(kind)
    api = await startExecutable({ ...place.env, LOGIN_LIMIT: '0', BCRYPT_COST: '12' })
    await untilReady(api)
  }, 60_000)
  afterAll(async () => {
    await api.stop()
    await place.remove()
  })

  /** Begins an import that gets its lines when they are written. */
  async function begin() {
    const child = Bun.spawn([await executablePath(), 'import', '-'], {
      env: { PATH: process.env.PATH, ...place.env },
      stdin: 'pipe',
      stderr: 'pipe',
    })
    const write = async (lines: string[]) => {
      child.stdin.write(lines.join(''))
      await child.stdin.flush()
    }
    const finish = async () => {
      await child.stdin.end()
      return { stderr: await child.stderr.text(), exitCode: await child.exited }
    }
    return { write, finish, kill: () => child.kill('SIGKILL'), exited: child.exited }
  }

  const signIn = async (username: string) =>
    (await api.post('/auth/login', { form: { username, password: 'correct horse' } })).body.access_token

  /** Follows the feed from a cursor to its end, as a client does that begins again after a 410. */
  async function sync(token: string, known = new Map<string, number>(), cursor?: string) {
    let since = cursor
    let expired = 0
    while (true) {
      const { status, body } = await api.get(`/tasks/changes?limit=200${since ? `&since=${since}` : ''}`, {
        token,
      })
      if (status === 410) {
        expired++
        known.clear()
        since = undefined
        continue
      }
      expect(status).toBe(200)
      for (const task of body.tasks) known.set(task.id, task.version)
      for (const id of body.deleted) known.delete(id)
      since = body.cursor as string
      if (!body.has_more) return { known, cursor: since, expired }
    }
  }

  async function list(token: string) {
    const tasks = new Map<string, number>()
    for (let address: string | undefined = '/tasks?limit=200'; address; ) {
      const { body, headers } = await api.get(address, { token })
      for (const task of body) tasks.set(task.id, task.version)
      const next = headers.get('link')?.match(/<(.+)>/)?.[1]
      address = next && `/${next}`
    }
    return tasks
  }

  /** The numbers 1 to `count` of a user: tasks, and each tenth of them a tombstone. */
  function history(email: string) {
    const id = crypto.randomUUID()
    const lines = Array.from({ length: count }, (_, n) =>
      n % 10 === 9 ? tombstoneLine(id, n + 1) : taskLine(id, n + 1),
    )
    return { id, email, lines: exportOf(userLine(id, { email, last_version: count + 5 }), ...lines) }
  }

  test.each([
    ['reads', false],
    ['also writes', true],
  ])(
    'a client that syncs in between and %s has everything in the end',
    async (_, writes) => {
      const { email, lines } = history(`${writes}@example.com`)
      const half = count >> 1
      const running = await begin()
      await running.write(lines.slice(0, half))
      let token = ''
      await until(async () => {
        token ||= await signIn(email)
        return token !== undefined && (await list(token)).size > 100
      })
      const before = await sync(token)
      if (writes) await api.task({ token }, { title: 'in between' })
      const between = await sync(token, before.known, before.cursor)
      await running.write(lines.slice(half))
      expect(await running.finish()).toMatchObject({ exitCode: 0 })

      const after = await sync(token, between.known, between.cursor)
      const listed = await list(token)
      expect(listed.size).toBe(count * 0.9 + (writes ? 1 : 0))
      expect(after.known).toEqual(listed)
      // The client goes on: nothing made it begin again.
      expect(before.expired + between.expired + after.expired).toBe(0)
      expect(new Set(listed.values()).size).toBe(listed.size)

      const later = await api.task({ token })
      expect((await sync(token, new Map(), after.cursor)).known).toEqual(new Map([[later.id, later.version]]))
      expect(later.version).toBeGreaterThan(count + 5)
    },
    120_000,
  )

  test('that is killed and run again adds the rest, once, in its order', async () => {
    const { email, lines } = history('killed@example.com')
    const running = await begin()
    await running.write(lines.slice(0, count >> 1))
    let token = ''
    await until(async () => {
      token ||= await signIn(email)
      return token !== undefined && (await list(token)).size > 100
    })
    running.kill()
    await running.exited
    const again = await begin()
    await again.write(lines)
    expect(await again.finish()).toMatchObject({ exitCode: 0 })

    const inFile = lines.map(line => JSON.parse(line)).filter(({ type }) => type === 'task')
    const listed = await list(token)
    expect([...listed.keys()].sort((a, b) => listed.get(a)! - listed.get(b)!)).toEqual(
      inFile.map(({ id }) => id),
    )
    expect(new Set(listed.values()).size).toBe(inFile.length)
  }, 120_000)
})
