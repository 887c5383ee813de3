import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { makeApiToken } from './support/api-token.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Client, testSettings, type User } from './support/harness.ts'
import { stopwatch } from './support/stopwatch.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'

type ApiToken = Awaited<ReturnType<typeof makeApiToken>>

/** What crosses replicas: two executables, real sockets, one PostgreSQL. */
describe('two replicas', () => {
  let database: PrivateDatabase
  let one: Running
  let two: Running

  beforeAll(async () => {
    database = await privateDatabase()
    const env = {
      ...testSettings,
      DATABASE_URL: database.url,
      LOGIN_FAILURE_LIMIT: '5',
      TRUSTED_PROXIES: '127.0.0.1',
    }
    ;[one, two] = await Promise.all([startExecutable(env), startExecutable(env)])
    await Promise.all([one, two].map(untilReady))
  }, 60_000)

  afterAll(async () => {
    await Promise.all([one?.stop(), two?.stop()])
    await database?.drop()
  })

  const me = (replica: Client, token: string) => replica.get('/users/me', { token })

  /** Uses a token all the time, and says how long after `end` it was refused first; fails if it was taken once more. */
  async function refusedAfter(replica: Client, token: string, end: () => Promise<unknown>): Promise<number> {
    while ((await me(replica, token)).status !== 200) await Bun.sleep(10)
    const ended = end().then(() => stopwatch(one.process.pid, two.process.pid))
    while ((await me(replica, token)).status === 200) await Bun.sleep(5)
    const elapsed = await ended
    const took = elapsed()
    for (let i = 0; i < 20; i++) expect((await me(replica, token)).status).toBe(401)
    return took
  }

  const signIn = async ({ email, password }: User) =>
    (await one.post('/auth/login', { form: { username: email, password } })).body.access_token as string

  test('a token of one works on the other', async () => {
    const ada = await one.user()
    expect(await me(two, ada.token)).toMatchObject({ status: 200, body: { id: ada.id } })
  })

  test.each([
    ['a sign-out', (ada: User) => one.post('/auth/logout', { token: ada.token })],
    ['a sign-out everywhere', (ada: User) => one.post('/auth/logout?scope=all', { token: ada.token })],
    [
      'the end of that session',
      async (ada: User) => {
        const { body } = await one.get('/auth/sessions', { token: ada.token })
        return one.delete(`/auth/sessions/${body[0].id}`, { token: ada.token })
      },
    ],
    [
      'a new password',
      async (ada: User) =>
        one.post('/users/me/password', {
          token: await signIn(ada),
          json: { current_password: ada.password, new_password: 'staple my battery' },
        }),
    ],
    [
      'the end of the account',
      (ada: User) => one.delete('/users/me', { token: ada.token, json: { password: ada.password } }),
    ],
  ])('%s on one stops a busy token on the other within a second', async (_, end) => {
    const ada = await one.user()
    expect(await refusedAfter(two, ada.token, () => end(ada))).toBeLessThan(1000)
  })

  test.each([
    [
      'its revocation',
      (ada: User, { id }: ApiToken) => one.delete(`/auth/tokens/${id}`, { token: ada.token }),
    ],
    [
      'its revocation by its text',
      (_: User, { token }: ApiToken) => one.post('/auth/revoke', { form: { token } }),
    ],
    [
      'a new password',
      (ada: User) =>
        one.post('/users/me/password', {
          token: ada.token,
          json: { current_password: ada.password, new_password: 'staple my battery' },
        }),
    ],
    [
      'the end of the account',
      (ada: User) => one.delete('/users/me', { token: ada.token, json: { password: ada.password } }),
    ],
  ])('%s on one stops a busy API token on the other within a second', async (_, end) => {
    const ada = await one.user()
    const made = await makeApiToken(one, ada, ['account:read'])
    expect(await refusedAfter(two, made.token, () => end(ada, made))).toBeLessThan(1000)
  })

  test('refreshes of one token on both give one child', async () => {
    const ada = await one.user()
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        (i % 2 ? one : two).post('/auth/refresh', { json: { refresh_token: ada.refreshToken } }),
      ),
    )
    expect(answers.map(answer => answer.status)).toEqual(Array(50).fill(200))
    expect(new Set(answers.map(answer => answer.body.refresh_token)).size).toBe(1)
  })

  test('wrong passwords on one count on the other', async () => {
    const ada = await one.user()
    const guess = (replica: Client) =>
      replica.post('/auth/login', {
        form: { username: ada.email, password: 'a guess' },
        headers: { 'x-forwarded-for': '203.0.113.9' },
      })
    for (let i = 0; i < 6; i++) expect((await guess(one)).status).toBe(401)
    expect((await guess(two)).status).toBe(429)
  })
})
