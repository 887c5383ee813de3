import { describe, expect, test } from 'bun:test'
import { crc32 } from 'node:zlib'
import { isWellFormed, newApiToken } from '../src/lib/api-token.ts'
import { makeApiToken } from './support/api-token.ts'
import { onBothDatabases } from './support/harness.ts'
import { listening } from './support/listening.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'
import { expectError, send } from './support/wire.ts'

describe('an API token', () => {
  const documented = () => Bun.file(`${import.meta.dir}/../docs/security.md`).text()

  test('has the form that docs/security.md documents for scanners', async () => {
    const [, source] = /`(\\btodo_pat_[^`]+)`/.exec(await documented())!
    const pattern = new RegExp(source!, 'g')
    const tokens = Array.from({ length: 200 }, newApiToken)

    expect([...(tokens.join('\n').match(pattern) ?? [])]).toEqual(tokens)
    expect(new Set(tokens).size).toBe(200)
    expect(`${tokens[0]}x`.match(pattern)).toBeNull()
  })

  test('ends with the CRC-32 of what stands before, in base 62', () => {
    const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
    for (const token of Array.from({ length: 200 }, newApiToken)) {
      const value = [...token.slice(-6)].reduce((sum, digit) => sum * 62 + digits.indexOf(digit), 0)
      expect(value).toBe(crc32(token.slice(0, -6)))
    }
  })

  test('uses every letter equally often', () => {
    const counts = new Map<string, number>()
    for (const token of Array.from({ length: 3000 }, newApiToken))
      for (const letter of token.slice(9, 41)) counts.set(letter, (counts.get(letter) ?? 0) + 1)

    // 96,000 letters: 1548 of each, give or take 39; seven times that is once in ten billion runs.
    expect(counts.size).toBe(62)
    expect([...counts.values()].filter(count => Math.abs(count - 1548) > 273)).toEqual([])
  })

  test('with one wrong letter is not well formed', () => {
    const token = newApiToken()
    expect(isWellFormed(token)).toBe(true)
    for (let i = 0; i < token.length; i++) {
      const wrong = token[i] === 'x' ? 'y' : 'x'
      expect([i, isWellFormed(token.slice(0, i) + wrong + token.slice(i + 1))]).toEqual([i, false])
    }
    expect(['', 'todo_pat_', token.slice(1), token.slice(0, -1), `${token}a`].filter(isWellFormed)).toEqual(
      [],
    )
  })
})

onBothDatabases('API tokens', api => {
  const status = async (token: string, path = '/tasks') => (await api.get(path, { token })).status
  const list = async (token: string) => (await api.get('/auth/tokens', { token })).body

  test('are made, shown once, listed without the secret, used and revoked', async () => {
    const ada = await api.user()

    const made = await makeApiToken(api, ada, ['account:read', 'tasks:write', 'tasks:write'])
    expect(made).toEqual({
      id: expect.any(String),
      token: expect.stringMatching(/^todo_pat_\w{38}$/),
      name: 'a script',
      scopes: ['tasks:write', 'account:read'],
      expires_at: expect.any(String),
      created_at: expect.any(String),
    })
    const { token, ...shown } = made
    expect(await list(ada.token)).toEqual([{ ...shown, prefix: token.slice(0, 12), last_used_at: null }])

    const created = await api.post('/tasks', { token, json: { title: 'by a script' } })
    expect(created).toMatchObject({ status: 201, body: { user_id: ada.id } })
    expect((await api.get('/users/me', { token })).body.id).toBe(ada.id)
    await until(async () => (await list(ada.token))[0].last_used_at !== null)
    expect((await list(ada.token))[0].last_used_at).toEqual(expect.any(String))

    expect((await api.delete(`/auth/tokens/${made.id}`, { token: ada.token })).status).toBe(204)
    expectError(await api.get('/tasks', { token }), 401, 'invalid_token', 'Could not validate credentials')
    expect(await list(ada.token)).toEqual([])
    expectError(await api.delete(`/auth/tokens/${made.id}`, { token: ada.token }), 404, 'token_not_found')
    expectError(await api.delete('/auth/tokens/nonsense', { token: ada.token }), 404, 'token_not_found')
  })

  test('expire in 90 days, at a time within a year, or never', async () => {
    const ada = await api.user()
    const inDays = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString()
    const daysLeft = async (fields: object) => {
      const { expires_at } = await makeApiToken(api, ada, ['tasks:read'], fields)
      return expires_at && Math.round((Date.parse(expires_at) - Date.now()) / 86_400_000)
    }

    expect(await daysLeft({})).toBe(90)
    expect(await daysLeft({ expires_at: inDays(364) })).toBe(364)
    expect(await daysLeft({ expires_at: null })).toBeNull()
    for (const [expires_at, type] of [
      [inDays(367), 'less_than_equal'],
      [new Date().toISOString(), 'datetime_future'],
      ['tomorrow', 'datetime'],
      [5, 'string_type'],
    ]) {
      const json = { name: 'x', scopes: ['tasks:read'], expires_at, current_password: ada.password }
      const answer = await api.post('/auth/tokens', { token: ada.token, json })
      expectError(answer, 422, 'validation_failed')
      expect(answer.body.detail).toEqual([{ loc: ['body', 'expires_at'], msg: expect.any(String), type }])
      expect(answer.body.body.current_password).toBe('********')
    }
  })

  test('expire when they say, whatever the offset and the digits', async () => {
    const ada = await api.user()
    const expiry = async (expires_at: string) =>
      (await makeApiToken(api, ada, ['tasks:read'], { expires_at })).expires_at
    const day = new Date(Date.now() + 9 * 86_400_000).toISOString().slice(0, 10)

    expect(await expiry(`${day}T23:59:30+23:59`)).toBe(`${day}T00:00:30.000000Z`)
    expect(await expiry(`${day}T00:00:00.9999999z`)).toBe(`${day}T00:00:00.999999Z`)
  })

  test('that expire stop on time, also one in use, and are not listed', async () => {
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada)
    await api.sql(`update api_tokens set expires_at = now() + interval '700 ms' where user_id = $1`, [ada.id])
    expect(await status(token)).toBe(200)

    const isOver = 'select expires_at < now() from api_tokens where user_id = $1'
    while (!(await api.sql(isOver, [ada.id]))[0]![0]) await status(token)

    // No revocation is recorded that a poll would report: only its own time can have ended it.
    expect(await status(token)).toBe(401)
    expect(await list(ada.token)).toEqual([])
  })

  test('name every mistake in the request for one at once', async () => {
    const ada = await api.user()

    const answer = await api.post('/auth/tokens', {
      token: ada.token,
      json: { name: ' ', scopes: ['tasks:read', 'admin'], expires_at: '2020-01-01T00:00:00Z' },
    })

    expectError(answer, 422, 'validation_failed')
    expect(answer.body.detail.map(({ loc }: { loc: unknown[] }) => loc.join('.')).sort()).toEqual([
      'body.current_password',
      'body.expires_at',
      'body.name',
      'body.scopes.1',
    ])
    for (const [name, status] of [
      ['x'.repeat(100), 201],
      ['x'.repeat(101), 422],
    ] as const) {
      const json = { name, scopes: ['tasks:read'], current_password: ada.password }
      expect((await api.post('/auth/tokens', { token: ada.token, json })).status).toBe(status)
    }
    for (const scopes of [[], undefined, 'tasks:read', Array(21).fill('tasks:read')]) {
      const json = { name: 'x', scopes, current_password: ada.password }
      expect((await api.post('/auth/tokens', { token: ada.token, json })).status).toBe(422)
    }
  })

  test('that may write may read, and those that may read may do nothing else', async () => {
    const ada = await api.user()
    const [writer, reader] = [
      await makeApiToken(api, ada, ['tasks:write']),
      await makeApiToken(api, ada, ['tasks:read']),
    ]
    const create = { op: 'create', task: { title: 'Buy milk' } }
    const statuses = async ({ token }: { token: string }) => [
      (await api.get('/tasks', { token })).status,
      (await api.request('HEAD', '/lists', { token })).status,
      (await api.post('/tasks', { token, json: { title: 'Buy milk' } })).status,
      (await api.post('/tasks/batch', { token, json: { operations: [create] } })).status,
      (await api.post('/lists', { token, json: { name: 'Groceries' } })).status,
      (await api.get('/users/me', { token })).status,
    ]

    expect(await statuses(writer)).toEqual([200, 200, 201, 200, 201, 403])
    expect(await statuses(reader)).toEqual([200, 200, 403, 403, 403, 403])
  })

  test('need the current password', async () => {
    const ada = await api.user()
    const make = (current_password: string) =>
      api.post('/auth/tokens', {
        token: ada.token,
        json: { name: 'x', scopes: ['tasks:read'], current_password },
      })

    expectError(await make('wrong'), 400, 'incorrect_password', 'Incorrect password')
    expect(await list(ada.token)).toEqual([])
    expect((await make(ada.password)).status).toBe(201)
  })

  test('are at most 50, also when many are made at once; an expired one does not count', async () => {
    const ada = await api.user()
    await api.sql(
      `insert into api_tokens (id, user_id, name, scopes, prefix, token_hash, expires_at)
        select gen_random_uuid(), $1::uuid, 'x', '{tasks:read}', 'x', md5(random()::text),
          now() + (i - 1) * interval '1 day' from generate_series(1, 46) i`,
      [ada.id],
    )

    const json = { name: 'x', scopes: ['tasks:read'], current_password: ada.password }
    const make = () => api.post('/auth/tokens', { token: ada.token, json })
    const answers = await Promise.all(Array.from({ length: 10 }, make))

    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(5).fill(201), ...Array(5).fill(409)])
    expectError(await make(), 409, 'too_many_tokens')
    expect(await list(ada.token)).toHaveLength(50)
  })

  test('of one user are out of reach for others', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const made = await makeApiToken(api, ada)
    const his = await makeApiToken(api, bob)
    await api.task(ada, { title: 'hers' })

    expect(await list(bob.token)).toMatchObject([{ id: his.id }])
    expectError(await api.delete(`/auth/tokens/${made.id}`, { token: bob.token }), 404, 'token_not_found')
    expect((await api.get('/tasks', { token: his.token })).body).toEqual([])
    expect((await api.get('/tasks', { token: made.token })).body).toMatchObject([{ title: 'hers' }])
  })

  test('end with a new password, unless it says keep_tokens, and with the account', async () => {
    const ada = await api.user()
    const change = (current_password: string, new_password: string, more: object) =>
      api.post('/users/me/password', {
        token: ada.token,
        json: { current_password, new_password, ...more },
      })
    const kept = (await makeApiToken(api, ada)).token
    expect(await status(kept)).toBe(200)

    const asText = await change(ada.password, 'staple my battery', { keep_tokens: 'true' })
    expect(asText.status).toBe(422)
    await change(ada.password, 'staple my battery', { keep_tokens: true })
    expect(await status(kept)).toBe(200)
    await change('staple my battery', ada.password, {})
    expect(await status(kept)).toBe(401)

    const last = (await makeApiToken(api, ada)).token
    expect(await status(last)).toBe(200)
    await api.delete('/users/me', { token: ada.token, json: { password: ada.password } })
    expect(await status(last)).toBe(401)
  })

  test('stay when their user signs out everywhere', async () => {
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada)

    await api.post('/auth/logout?scope=all', { token: ada.token })

    expect(await status(token)).toBe(200)
  })

  test('that an operator deletes stop within a second, also one in use', async () => {
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada)
    expect(await status(token)).toBe(200)
    await api.sql('delete from api_tokens where user_id = $1', [ada.id])

    const elapsed = stopwatch()
    while (elapsed() < 1000 && (await status(token)) === 200) await Bun.sleep(20)

    expect(await status(token)).toBe(401)
  })

  test('note their own use at most once a minute', async () => {
    const ada = await api.user()
    const unused = await makeApiToken(api, ada)
    /** Uses a token that was last used so long ago, and returns whether that is noted by now. */
    const use = async (age: string) => {
      const { id, token } = await makeApiToken(api, ada)
      await api.sql('update api_tokens set last_used_at = now() - $1::interval where id = $2', [age, id])
      await status(token)
      const recent = `select last_used_at > now() - interval '30 seconds' from api_tokens where id = $1`
      return async () => (await api.sql(recent, [id]))[0]![0] as boolean
    }

    const isNotedAfter55 = await use('55 seconds')
    const isNotedAfter61 = await use('61 seconds')
    // No request waits for the note.
    await until(isNotedAfter61)
    expect(await isNotedAfter55()).toBe(false)
    // Newest first: the last one is the oldest.
    expect((await list(ada.token)).at(-1)).toMatchObject({ id: unused.id, last_used_at: null })
  })

  test('are stored as hashes, and stand in no line of the log', async () => {
    const ada = await api.user()
    const { id, token } = await makeApiToken(api, ada, ['tasks:write'])
    const secret = token.slice(12, 41)
    await api.post('/tasks', { token, json: { title: '' } })
    await api.get('/auth/tokens', { token })
    await api.get(`/tasks?q=${token}&access_token=${token}`, { token })
    await api.get(`/tasks/${token}`, { token: ada.token })
    await api.post('/auth/revoke', { form: { token } })
    await api.get('/tasks', { token })

    const stored = await api.sql('select to_jsonb(t)::text from api_tokens t where user_id = $1', [ada.id])
    expect(String(stored)).not.toContain(secret)
    expect(id).toBeString()
    const log = api.logs()
    expect(log.length).toBeGreaterThan(5)
    expect(JSON.stringify(log)).not.toContain(secret)
  })

  test('are masked wherever a 422 repeats what was sent', async () => {
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada, ['tasks:write'])
    const [typo, cut] = [`${token.slice(0, -1)}_`, token.slice(0, -1)]

    for (const [path, sent] of [
      ['/auth/revoke', { json: { token, client_secret: 5, token_type_hint: token } }],
      ['/auth/revoke', { json: { token: [token] } }],
      [
        '/tasks',
        { json: { title: '', description: `the key is ${token}, or ${typo}, or ${cut}`, tags: [token] } },
      ],
      ['/tasks', { json: { title: 'x', [token]: token }, headers: { prefer: 'handling=strict' } }],
      ['/auth/tokens', { json: { name: token, scopes: [token], current_password: token } }],
      [`/tasks?${token}=1`, { json: { title: 'x' } }],
    ] as const) {
      const answer = await api.post(path, { token: path.startsWith('/auth') ? ada.token : token, ...sent })
      expect([path, answer.status]).toEqual([path, 422])
      expect(JSON.stringify(answer.body)).not.toContain(token.slice(12, 41))
    }
  })

  test('with a typing mistake, and hostile ones, are refused without a look at the database', async () => {
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada)
    const { url, texts, stop } = listening(api)
    const wrong = [
      'todo_pat_',
      `${token}0`,
      token.slice(0, -1),
      token.toLowerCase(),
      `${token.slice(0, 20)}${token[20] === 'a' ? 'b' : 'a'}${token.slice(21)}`,
      `${token}, ${token}`,
      `${token} x`,
      `todo_pat_${'x'.repeat(8000)}`,
      'todo_pat_\xff\xfe',
      'todo_pat_é€😀',
      `${token}%00`,
      "todo_pat_' or 1=1 --",
    ]
    for (const text of wrong) {
      const headers = [`Authorization: Bearer ${Buffer.from(text).toString('latin1')}`]
      const answer = await send(url, { line: 'GET /api/v1/tasks', headers })
      expectError(answer, 401, 'invalid_token', 'Could not validate credentials')
    }
    expect([...texts].filter(text => text.includes('api_tokens'))).toEqual([])

    // The same service does look a right one up. A NUL ends the request itself.
    const right = [`Authorization: Bearer ${token}`]
    expect((await send(url, { line: 'GET /api/v1/tasks', headers: right })).status).toBe(200)
    expect([...texts].filter(text => text.includes('from "api_tokens"'))).toHaveLength(1)
    const nul = [`Authorization: Bearer ${token}\0`]
    expect((await send(url, { line: 'GET /api/v1/tasks', headers: nul })).status).toBe(400)
    await stop()
    expectError(await api.get('/tasks', { token: newApiToken() }), 401, 'invalid_token')
    expect(await status(token)).toBe(200)
  })
})

onBothDatabases(
  'guesses of the password for a new API token',
  api => {
    test('are counted with those at the sign-in', async () => {
      const ada = await api.user()
      const make = (current_password: string) =>
        api.post('/auth/tokens', {
          token: ada.token,
          json: { name: 'x', scopes: ['tasks:read'], current_password },
        })

      const guesses = [await make('one'), await make('two'), await make('three'), await make('four')]

      expect(guesses.map(({ status }) => status)).toEqual([400, 400, 400, 429])
      expect((await make(ada.password)).status).toBe(429)
      const form = { username: ada.email, password: ada.password }
      expect((await api.post('/auth/login', { form })).status).toBe(429)
    })
  },
  { LOGIN_FAILURE_LIMIT: '2' },
)
