import { expect, test } from 'bun:test'
import type postgres from 'postgres'
import type { User } from './support/harness.ts'
import { serviceWithMeetings } from './support/meet.ts'

/** Races for an account, made to happen: another session changes its row, and a request waits for that. */
const { api, meeting } = serviceWithMeetings()

type Sql = postgres.TransactionSql

const newPassword = 'staple my battery'
const hashOf = (password: string, cost: number) => Bun.password.hash(password, { algorithm: 'bcrypt', cost })
const setHash = (user: User, hash: string) => (sql: Sql) =>
  sql`update users set password_hash = ${hash} where id = ${user.id}`
const storedHash = async (user: User) => {
  const [row] = await api.sql('select password_hash from users where id = $1', [user.id])
  return row![0] as string
}
const signIn = ({ email, password }: User) => api.post('/auth/login', { form: { username: email, password } })

const newToken = ({ token, password }: User) =>
  api.post('/auth/tokens', {
    token,
    json: { name: 'a script', scopes: ['tasks:read'], current_password: password },
  })

/** Every call that asks for the password, with the right one. */
const calls: [
  name: string,
  refused: number,
  done: number,
  call: (user: User) => Promise<{ status: number }>,
][] = [
  ['a sign-in', 401, 200, signIn],
  [
    'a change of the password',
    400,
    204,
    ({ token, password }) =>
      api.post('/users/me/password', {
        token,
        json: { current_password: password, new_password: 'yet another one' },
      }),
  ],
  [
    'a change of the address',
    400,
    200,
    ({ token, password }) =>
      api.patch('/users/me', {
        token,
        json: { current_password: password, email: `${crypto.randomUUID()}@example.com` },
      }),
  ],
  ['a new API token', 400, 201, newToken],
  [
    'a deletion of the account',
    400,
    204,
    ({ token, password }) => api.delete('/users/me', { token, json: { password } }),
  ],
]

test.each(calls)('%s that meets a change of the password is refused', async (_, refused, _done, call) => {
  const ada = await api.user()
  const changed = await hashOf(newPassword, 4)

  const [answer] = await meeting.meet(setHash(ada, changed), [() => call(ada)])

  expect(answer!.status).toBe(refused)
  expect(await storedHash(ada)).toBe(changed)
})

test.each(calls)(
  '%s that meets a renewed hash of the same password succeeds',
  async (_, _refused, done, call) => {
    const ada = await api.user()

    const [answer] = await meeting.meet(setHash(ada, await hashOf(ada.password, 5)), [() => call(ada)])

    expect(answer!.status).toBe(done)
  },
)

test.each([
  ['a sign-in', 401, signIn],
  ['a new API token', 400, newToken],
] as const)('%s that meets the disabling of the account is refused', async (_, refused, call) => {
  const ada = await api.user()

  const [answer] = await meeting.meet(
    sql => sql`update users set disabled_at = now() where id = ${ada.id}`,
    [() => call(ada)],
  )

  expect(answer!.status).toBe(refused)
  expect(await api.sql('select 1 from api_tokens where user_id = $1', [ada.id])).toEqual([])
})

test.each([
  ['a revocation', '/auth/revoke', 'token', 200],
  ['a refresh with an old token', '/auth/refresh', 'refresh_token', 401],
])('%s is answered when the session is over, not before', async (_, path, name, status) => {
  const ada = await api.user()
  let token = ada.refreshToken
  for (let i = 0; i < 2; i++)
    token = (await api.post('/auth/refresh', { form: { refresh_token: token } })).body.refresh_token
  let isAnswered = false
  const end = () =>
    api.post(path, { form: { [name]: ada.refreshToken } }).finally(() => {
      isAnswered = true
    })

  const [answer] = await meeting.meet(
    sql => sql`select 1 from sessions where user_id = ${ada.id} for update`,
    [end],
    async () => {
      expect((await api.get('/health/live')).status).toBe(200)
      expect(isAnswered).toBe(false)
    },
  )

  expect(answer!.status).toBe(status)
  expect((await api.get('/users/me', { token: ada.token })).status).toBe(401)
})

test('of two creations that meet at the last place one makes an API token', async () => {
  const ada = await api.user()
  await api.sql(
    `insert into api_tokens (id, user_id, name, scopes, prefix, token_hash)
      select gen_random_uuid(), $1::uuid, 'x', '{tasks:read}', 'x', i::text from generate_series(1, 49) i`,
    [ada.id],
  )

  const answers = await meeting.meet(
    sql => sql`select 1 from users where id = ${ada.id} for share`,
    [() => newToken(ada), () => newToken(ada)],
  )

  expect(answers.map(({ status }) => status).sort()).toEqual([201, 409])
})

test('a stolen refresh token is refused when its session has ended, not before', async () => {
  const ada = await api.user()
  const refresh = (refresh_token: string) => api.post('/auth/refresh', { json: { refresh_token } })
  const second = (await refresh(ada.refreshToken)).body.refresh_token
  await refresh(second)
  let isAnswered = false

  const [answer] = await meeting.meet(
    sql => sql`select 1 from sessions where user_id = ${ada.id} for update`,
    [() => refresh(ada.refreshToken).finally(() => (isAnswered = true))],
    async () => {
      await Bun.sleep(50)
      expect(isAnswered).toBe(false)
    },
  )

  expect(answer!.status).toBe(401)
  expect((await api.get('/users/me', { token: ada.token })).status).toBe(401)
})

test('a hash that is renewed at a sign-in does not undo a change of the password', async () => {
  const ada = await api.user()
  await meeting.sql.begin(setHash(ada, await hashOf(ada.password, 5)))
  const changed = await hashOf(newPassword, 4)
  let other: Sql | undefined
  let isAnswered = false

  // The new session needs the row as it is, and gets it; the new hash has to wait.
  const [answer] = await meeting.meet(
    sql => {
      other = sql
      return sql`select 1 from users where id = ${ada.id} for share`
    },
    [() => signIn(ada).finally(() => (isAnswered = true))],
    async () => {
      // A hash that cannot be stored is the failure of this request, and of nothing else.
      await Bun.sleep(50)
      expect(isAnswered).toBe(false)
      await setHash(ada, changed)(other!)
    },
  )

  expect(answer!.status).toBe(200)
  expect(await storedHash(ada)).toBe(changed)
})

test.each([
  ['succeeds although its hash cannot be renewed now', 'cannot_connect_now', 200],
  ['hides no fault of the renewal of its hash', 'raise_exception', 500],
])('a sign-in %s', async (_, code, expected) => {
  const ada = await api.user()
  const outdated = await hashOf(ada.password, 5)
  await meeting.sql.begin(setHash(ada, outdated))
  await api.sql(
    `create function refuse() returns trigger language plpgsql as
      $$ begin raise exception 'away' using errcode = '${code}'; end $$`,
    [],
  )
  await api.sql('create trigger refuse before update on users for each row execute function refuse()', [])

  const { status } = await signIn(ada)

  await api.sql('drop function refuse cascade', [])
  expect([status, await storedHash(ada)]).toEqual([expected, outdated])
})

test('a sign-in and a new API token that were under way when the password was changed come to nothing', async () => {
  const ada = await api.user()
  const sessionId = Bun.randomUUIDv7()

  const [answer] = await meeting.meet(
    async sql => {
      await sql`select 1 from users where id = ${ada.id} for share`
      await sql`
        insert into sessions (id, user_id, token_hash, expires_at)
        values (${sessionId}, ${ada.id}, 'x', now() + interval '1 day')`
      await sql`
        insert into api_tokens (id, user_id, name, scopes, prefix, token_hash)
        values (${sessionId}, ${ada.id}, 'x', '{tasks:read}', 'x', 'x')`
    },
    [
      () =>
        api.post('/users/me/password', {
          token: ada.token,
          json: { current_password: ada.password, new_password: newPassword },
        }),
    ],
  )

  expect(answer!.status).toBe(204)
  expect(await api.sql('select 1 from sessions where id = $1', [sessionId])).toEqual([])
  expect(await api.sql('select 1 from api_tokens where id = $1', [sessionId])).toEqual([])
})

const refresh = async (refreshToken: string) =>
  (await api.post('/auth/refresh', { json: { refresh_token: refreshToken } })).body.refresh_token
const revoke = (token: string) => api.post('/auth/revoke', { form: { token } })

test.each<
  [
    name: string,
    table: 'sessions' | 'api_tokens',
    call: (user: User, apiToken: string) => Promise<{ status: number }>,
  ]
>([
  ['a sign-out', 'sessions', ({ token }) => api.post('/auth/logout', { token })],
  ['the revocation of an access token', 'sessions', ({ token }) => revoke(token)],
  ['the revocation of a refresh token', 'sessions', ({ refreshToken }) => revoke(refreshToken)],
  [
    'a refresh token that was used long ago',
    'sessions',
    ({ refreshToken }) => api.post('/auth/refresh', { json: { refresh_token: refreshToken } }),
  ],
  [
    'the end of a session',
    'sessions',
    async ({ token }) => {
      const [{ id }] = (await api.get('/auth/sessions', { token })).body
      return api.delete(`/auth/sessions/${id}`, { token })
    },
  ],
  ['the revocation of an API token by its text', 'api_tokens', (_, apiToken) => revoke(apiToken)],
  [
    'the revocation of an API token by its id',
    'api_tokens',
    async ({ token }) => {
      const [{ id }] = (await api.get('/auth/tokens', { token })).body
      return api.delete(`/auth/tokens/${id}`, { token })
    },
  ],
])('%s is answered when what it ends is gone, not before', async (_, table, call) => {
  const ada = await api.user()
  await refresh(await refresh(ada.refreshToken))
  const { body } = await newToken(ada)
  let isAnswered = false

  await meeting.meet(
    sql => sql`select 1 from ${sql(table)} where user_id = ${ada.id} for update`,
    [
      async () => {
        await call(ada, body.token)
        isAnswered = true
      },
    ],
    async () => {
      await Bun.sleep(50)
      expect(isAnswered).toBe(false)
    },
  )

  expect(await api.sql(`select 1 from ${table} where user_id = $1`, [ada.id])).toEqual([])
})
