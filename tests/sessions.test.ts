import { expect, setSystemTime, test } from 'bun:test'
import { decodeJwt } from 'jose'
import { sha256 } from '../src/lib/sha256.ts'
import { makeApiToken } from './support/api-token.ts'
import { onBothDatabases, type User } from './support/harness.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'

onBothDatabases('sessions', api => {
  const signIn = async ({ email, password }: User, headers = {}): Promise<User> => {
    const { body } = await api.post('/auth/login', { form: { username: email, password }, headers })
    return { ...({} as User), email, password, token: body.access_token, refreshToken: body.refresh_token }
  }
  const works = async ({ token }: { token: string }) => (await api.get('/users/me', { token })).status === 200
  const refresh = (refreshToken: string) =>
    api.post('/auth/refresh', { json: { refresh_token: refreshToken } })

  test('a sign-out ends the caller’s session and no other', async () => {
    const here = await api.user()
    const there = await signIn(here)

    const answer = await api.post('/auth/logout', { token: here.token })

    expect(answer.status).toBe(204)
    const refused = await api.get('/users/me', { token: here.token })
    expect(refused).toMatchObject({ status: 401, body: { detail: 'Could not validate credentials' } })
    expect((await refresh(here.refreshToken)).status).toBe(401)
    expect(await works(there)).toBe(true)
  })

  test('scope=others keeps only the caller’s session, scope=all none', async () => {
    const here = await api.user()
    const there = await signIn(here)
    const bob = await api.user()

    await api.post('/auth/logout?scope=others', { token: here.token })
    expect([await works(here), await works(there), await works(bob)]).toEqual([true, false, true])

    const again = await signIn(here)
    await api.post('/auth/logout?scope=all', { token: here.token })
    expect([await works(here), await works(again), await works(bob)]).toEqual([false, false, true])
    expect((await api.post('/auth/logout?scope=none', { token: (await signIn(here)).token })).status).toBe(
      422,
    )
  })

  test('the list names every session of the caller, and one of them can be ended', async () => {
    const here = await api.user()
    const there = await signIn(here, { 'user-agent': 'a phone' })
    const other = await api.user()
    await api.sql(
      `update sessions set created_at = '2026-01-01T00:00:00Z', last_used_at = '2026-01-02T00:00:00Z' where user_id = $1 and user_agent = 'a phone'`,
      [here.id],
    )

    const list = await api.get('/auth/sessions', { token: here.token })

    expect(list.status).toBe(200)
    expect(list.body).toHaveLength(2)
    expect(list.body[0]).toEqual({
      id: expect.any(String),
      created_at: '2026-01-01T00:00:00.000000Z',
      last_used_at: '2026-01-02T00:00:00.000000Z',
      expires_at: expect.any(String),
      user_agent: 'a phone',
      ip: '127.0.0.1',
      current: false,
    })
    expect(list.body[1].current).toBe(true)
    const { created_at, expires_at } = list.body[1]
    expect(Date.parse(expires_at) - Date.parse(created_at)).toBe(30 * 86_400_000)

    const path = `/auth/sessions/${list.body[0].id}`
    expect((await api.delete(path, { token: other.token })).status).toBe(404)
    expect((await api.delete(path, { token: here.token })).status).toBe(204)
    expect(await works(there)).toBe(false)
    expect(await api.delete(path, { token: here.token })).toMatchObject({
      status: 404,
      body: { code: 'session_not_found' },
    })
    expect((await api.delete('/auth/sessions/nonsense', { token: here.token })).status).toBe(404)
  })

  test('a refresh returns a new pair, and the same pair again for a short while', async () => {
    const ada = await api.user()

    const first = await refresh(ada.refreshToken)
    const again = await api.post('/auth/refresh', {
      form: { grant_type: 'refresh_token', refresh_token: ada.refreshToken },
    })

    expect(first.status).toBe(200)
    expect(Object.keys(first.body).sort()).toEqual([
      'access_token',
      'expires_in',
      'refresh_token',
      'token_type',
    ])
    expect(first.body.refresh_token).not.toBe(ada.refreshToken)
    expect(again.body.refresh_token).toBe(first.body.refresh_token)
    expect(await works({ token: first.body.access_token })).toBe(true)
  })

  test('fifty refreshes at the same instant return one child, and no session ends', async () => {
    const ada = await api.user()

    const answers = await Promise.all(Array.from({ length: 50 }, () => refresh(ada.refreshToken)))

    expect(answers.map(answer => answer.status)).toEqual(Array(50).fill(200))
    expect(new Set(answers.map(answer => answer.body.refresh_token)).size).toBe(1)
    expect((await refresh(answers[0]!.body.refresh_token)).status).toBe(200)
  })

  test('an older token that comes back ends the whole session', async () => {
    const ada = await api.user()
    const second = (await refresh(ada.refreshToken)).body
    const third = (await refresh(second.refresh_token)).body

    const stolen = await refresh(ada.refreshToken)

    expect(stolen).toMatchObject({ status: 401, body: { detail: 'Could not validate credentials' } })
    expect((await refresh(third.refresh_token)).status).toBe(401)
    expect(await works({ token: third.access_token })).toBe(false)
  })

  test('the token before the last one is good for ten seconds, which do not begin again with its use', async () => {
    const ada = await api.user()
    await refresh(ada.refreshToken)
    await api.sql(
      `update sessions set rotated_at = now() - interval '9 seconds', expires_at = now() + interval '1 day'
       where user_id = $1`,
      [ada.id],
    )

    expect((await refresh(ada.refreshToken)).status).toBe(200)

    // Neither does the time of the session.
    const rows = await api.sql(
      `select rotated_at < now() - interval '8 seconds', expires_at < now() + interval '1 day' from sessions
       where user_id = $1`,
      [ada.id],
    )
    expect([...rows]).toEqual([[true, true]])
  })

  test('the token before the last one is too old after ten seconds', async () => {
    const ada = await api.user()
    const next = (await refresh(ada.refreshToken)).body
    await api.sql(`update sessions set rotated_at = now() - interval '11 seconds' where user_id = $1`, [
      ada.id,
    ])

    expect((await refresh(ada.refreshToken)).status).toBe(401)
    expect((await refresh(next.refresh_token)).status).toBe(401)
  })

  test('a session that has had its thirty days is over', async () => {
    const ada = await api.user()
    await api.sql(`update sessions set expires_at = now() - interval '1 second' where user_id = $1`, [ada.id])

    expect((await refresh(ada.refreshToken)).status).toBe(401)
  })

  test('the access tokens of such a session are over as well', async () => {
    const ada = await api.user()
    await api.sql(`update sessions set expires_at = now() - interval '1 second' where user_id = $1`, [ada.id])

    expect(await works(ada)).toBe(false)
  })

  test('so is one in use, when its time comes', async () => {
    const ada = await api.user()
    await api.sql(`update sessions set expires_at = now() + interval '700 ms' where user_id = $1`, [ada.id])
    expect(await works(ada)).toBe(true)

    await until(async () => {
      const [row] = await api.sql('select expires_at < now() from sessions where user_id = $1', [ada.id])
      await works(ada)
      return row![0] === true
    })
    // No sign-out has ended this session, which a poll would report: only its own time can.
    expect(await works(ada)).toBe(false)
  })

  test('such a session is not listed', async () => {
    const here = await api.user()
    const there = await signIn(here)
    const [, { id }] = (await api.get('/auth/sessions', { token: there.token })).body
    await api.sql(`update sessions set expires_at = now() - interval '1 second' where id = $1`, [id])

    expect((await api.get('/auth/sessions', { token: there.token })).body).toEqual([
      expect.objectContaining({ current: true }),
    ])
  })

  test('of more than a thousand a sign-in ends those that were not used for the longest time', async () => {
    const first = await api.user()
    const second = await signIn(first)
    const third = await signIn(first)
    const bob = await api.user()
    expect([await works(first), await works(second), await works(third)]).toEqual([true, true, true])
    await api.sql(
      `insert into sessions (id, user_id, token_hash, last_used_at, expires_at)
       select gen_random_uuid(), $1, 'of another session ' || n, now() - interval '1 day', now() + interval '1 hour'
       from generate_series(1, 998) n`,
      [first.id],
    )
    for (const [{ token }, days] of [
      [first, 3],
      [second, 2],
      [bob, 4],
    ] as const)
      await api.sql(`update sessions set last_used_at = now() - $1 * interval '1 day' where id = $2`, [
        days,
        decodeJwt(token).sid,
      ])

    const here = await signIn(first)

    expect((await api.get('/auth/sessions', { token: here.token })).body).toHaveLength(1000)
    expect([await works(first), await works(second)]).toEqual([false, false])
    expect([await works(third), await works(here), await works(bob)]).toEqual([true, true, true])
  })

  test('a sign-in does not end its own session, when the clock was set back and all others look newer', async () => {
    const ada = await api.user()
    await api.sql(
      `insert into sessions (id, user_id, token_hash, last_used_at, expires_at)
       select gen_random_uuid(), $1, 'of another session ' || n, now() + interval '1 hour', now() + interval '2 hours'
       from generate_series(1, 1000) n`,
      [ada.id],
    )

    expect(await works(await signIn(ada))).toBe(true)
  })

  test('a session lasts thirty days from its last refresh', async () => {
    const ada = await api.user()
    const secondsLeft = async () => {
      const sql = 'select extract(epoch from expires_at - now())::float8 from sessions where user_id = $1'
      return (await api.sql(sql, [ada.id]))[0]![0]
    }
    const days30 = 30 * 24 * 3600
    expect(await secondsLeft()).toBeWithin(days30 - 60, days30 + 1)
    await api.sql(`update sessions set expires_at = now() + interval '1 day' where user_id = $1`, [ada.id])

    await refresh(ada.refreshToken)

    expect(await secondsLeft()).toBeWithin(days30 - 60, days30 + 1)
  })

  test('the use of a session is noted when the last note is five minutes old', async () => {
    const ada = await api.user()
    /** Uses a session that was last used so long ago, and returns whether that is noted by now. */
    const use = async (age: string) => {
      const { token } = await signIn(ada)
      const [{ id }] = (await api.get('/auth/sessions', { token: ada.token })).body
      await api.sql('update sessions set last_used_at = now() - $1::interval where id = $2', [age, id])
      await works({ token })
      const recent = `select last_used_at > now() - interval '1 minute' from sessions where id = $1`
      return async () => (await api.sql(recent, [id]))[0]![0] as boolean
    }

    const secondsAgo = async () => {
      const [row] = await api.sql(
        `select (extract(epoch from now() - min(last_used_at)))::int from sessions where user_id = $1`,
        [ada.id],
      )
      return row![0]
    }
    const isNotedEarly = await use('4 minutes 50 seconds')
    const isNotedLate = await use('5 minutes 1 second')
    // No request waits for the note.
    await until(isNotedLate)
    expect(await isNotedEarly()).toBe(false)
    const newest = (await api.get('/auth/sessions', { token: ada.token })).body
    expect(newest.map(({ id }: { id: string }) => id)).toEqual(
      newest
        .map(({ id }: { id: string }) => id)
        .toSorted()
        .toReversed(),
    )
    // The use of one session is none of another.
    expect(await secondsAgo()).toBeGreaterThan(280)

    await api.sql(`update sessions set last_used_at = now() - interval '1 minute' where user_id = $1`, [
      ada.id,
    ])
    await api.sql(`delete from sessions where user_id = $1 and token_hash <> $2`, [
      ada.id,
      sha256(ada.refreshToken),
    ])
    await refresh(ada.refreshToken)
    expect(await secondsAgo()).toBeLessThan(30)
  })

  test('a use that cannot be noted fails no request', async () => {
    const ada = await api.user()
    const both = [await signIn(ada), await makeApiToken(api, ada)]
    await api.sql(
      `create function refuse_note() returns trigger language plpgsql
      as $$ begin raise exception 'refused'; end $$`,
      [],
    )
    for (const table of ['sessions', 'api_tokens']) {
      await api.sql(`update ${table} set last_used_at = now() - interval '1 hour' where user_id = $1`, [
        ada.id,
      ])
      await api.sql(
        `create trigger refuse_note before update of last_used_at on ${table} for each row
        when (old.user_id = '${ada.id}') execute function refuse_note()`,
        [],
      )
    }
    try {
      for (const { token } of both) expect((await api.get('/tasks', { token })).status).toBe(200)
    } finally {
      await api.sql('drop function refuse_note cascade', [])
    }
  })

  test('of a long user agent 500 characters are kept', async () => {
    const ada = await api.user()
    await signIn(ada, { 'user-agent': 'x'.repeat(2000) })

    const { body } = await api.get('/auth/sessions', { token: ada.token })

    expect(body[0].user_agent).toBe('x'.repeat(500))
  })

  test('an invented token ends no session', async () => {
    const ada = await api.user()
    const bytes = Buffer.from(ada.refreshToken, 'base64url')
    bytes[20]! ^= 1

    expect((await refresh(bytes.toString('base64url'))).status).toBe(401)
    expect((await refresh('nonsense')).status).toBe(401)
    expect((await refresh(ada.refreshToken)).status).toBe(200)
  })

  test('what is not to the letter a refresh token of ours ends no session', async () => {
    const ada = await api.user()
    const token = ada.refreshToken
    const forms = [
      `${token}==`,
      `${token}=`,
      ` ${token}`,
      `${token}\n`,
      `"${token}"`,
      `${token.slice(0, 9)} ${token.slice(9)}`,
      `${token}*`,
      token.replaceAll('-', '+').replaceAll('_', '/').padEnd(88, '='),
      // 64 bytes leave four bits of the last character unused.
      token.slice(0, -1) + String.fromCharCode(token.charCodeAt(token.length - 1) + 1),
    ].filter(form => form !== token)

    for (const form of forms) expect([form, (await refresh(form)).status]).toEqual([form, 401])
    expect(await works(ada)).toBe(true)
    expect((await refresh(token)).status).toBe(200)
  })

  test('the database holds no token, only hashes', async () => {
    const ada = await api.user()
    const rows = await api.sql(`select to_jsonb(s)::text from sessions s where user_id = $1`, [ada.id])

    const secret = Buffer.from(ada.refreshToken, 'base64url').subarray(16, 48)
    for (const form of [ada.refreshToken, ada.token, secret.toString('hex'), secret.toString('base64')]) {
      expect(String(rows[0]![0])).not.toContain(form)
    }
  })

  test('a new password ends every other session, and the old password works no more', async () => {
    const here = await api.user()
    const there = await signIn(here)

    const wrong = await api.post('/users/me/password', {
      token: here.token,
      json: { current_password: 'not it at all', new_password: 'staple my battery' },
    })
    const right = await api.post('/users/me/password', {
      token: here.token,
      json: { current_password: here.password, new_password: 'staple my battery' },
    })

    const short = await api.post('/users/me/password', {
      token: here.token,
      json: { current_password: 'staple my battery', new_password: 'x'.repeat(7) },
    })

    expect(wrong).toMatchObject({ status: 400, body: { detail: 'Incorrect password' } })
    expect([short.status, short.body.detail?.[0].loc]).toEqual([422, ['body', 'new_password']])
    expect(right.status).toBe(204)
    const { body: profile } = await api.get('/users/me', { token: here.token })
    expect(profile.updated_at > profile.created_at).toBe(true)
    expect([await works(here), await works(there)]).toEqual([true, false])
    expect(
      (await api.post('/auth/login', { form: { username: here.email, password: here.password } })).status,
    ).toBe(401)
    expect(await works(await signIn({ ...here, password: 'staple my battery' }))).toBe(true)
  })

  test('a new password ends no session of another user', async () => {
    const ada = await api.user()
    const bob = await api.user()

    await api.post('/users/me/password', {
      token: ada.token,
      json: { current_password: ada.password, new_password: 'staple my battery' },
    })

    expect(await works(bob)).toBe(true)
    expect((await refresh(bob.refreshToken)).status).toBe(200)
  })

  test('a token in use stops at once when the password is changed or the account deleted', async () => {
    const here = await api.user()
    const there = await signIn(here)
    const change = { current_password: here.password, new_password: 'staple my battery' }
    await Promise.all([here, there].map(works))

    await api.post('/users/me/password', { token: here.token, json: change })
    expect(await works(there)).toBe(false)

    const elsewhere = await signIn({ ...here, password: change.new_password })
    expect(await works(elsewhere)).toBe(true)
    await api.delete('/users/me', { token: here.token, json: { password: change.new_password } })
    // Tasks first: their statement does not read the user, and no poll for revocations has helped yet.
    for (const { token } of [here, elsewhere])
      for (const path of ['/tasks', '/users/me', '/auth/sessions']) {
        expect(await api.get(path, { token })).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
      }
  })

  test('a sign-out of a session that had ended unnoticed ends its tokens, too', async () => {
    const ada = await api.user()
    expect(await works(ada)).toBe(true)
    await api.sql(`alter table sessions disable trigger sessions_ended`, [])
    await api.sql('delete from sessions where user_id = $1', [ada.id])
    await api.sql(`alter table sessions enable trigger sessions_ended`, [])
    expect(await works(ada)).toBe(true)

    expect((await api.post('/auth/logout', { token: ada.token })).status).toBe(204)
    expect(await works(ada)).toBe(false)
  })

  test('no ticket is issued for an account that was deleted elsewhere a moment ago', async () => {
    const ada = await api.user()
    expect(await works(ada)).toBe(true)
    await api.sql('delete from users where id = $1', [ada.id])

    const answer = await api.post('/auth/tickets', { token: ada.token, json: { for: 'events' } })

    expect(answer).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
  })

  test('an address can be changed to one that is free, whatever the case of its letters', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const change = (email: string, current_password = ada.password) =>
      api.patch('/users/me', { token: ada.token, json: { email, current_password } })

    expect(await change(bob.email.toUpperCase())).toMatchObject({
      status: 400,
      body: { code: 'email_taken' },
    })
    expect(await change('new@example.com', 'wrong')).toMatchObject({
      status: 400,
      body: { code: 'incorrect_password' },
    })
    const mine = `Ada.${crypto.randomUUID()}@Example.com`
    const { status, body: profile } = await change(` ${mine} `)
    expect([status, profile.id, profile.email]).toEqual([200, ada.id, mine])
    expect(profile.updated_at > profile.created_at).toBe(true)
    expect(await works(await signIn({ ...ada, email: mine.toLowerCase() }))).toBe(true)
  })

  test('a deleted account takes its sessions and tasks along', async () => {
    const ada = await api.user()
    await api.task(ada)

    expect((await api.delete('/users/me', { token: ada.token, json: { password: 'wrong' } })).status).toBe(
      400,
    )
    expect(
      (await api.delete('/users/me', { token: ada.token, json: { password: ada.password } })).status,
    ).toBe(204)

    expect(await works(ada)).toBe(false)
    expect((await refresh(ada.refreshToken)).status).toBe(401)
    const rows = await api.sql('select count(*) from tasks where user_id = $1', [ada.id])
    expect(rows).toEqual([[0]])
    await api.user(ada.email)
  })

  test('a disabled account cannot sign in', async () => {
    const ada = await api.user()
    await api.sql('update users set disabled_at = now() where id = $1', [ada.id])

    const answer = await api.post('/auth/login', { form: { username: ada.email, password: ada.password } })

    expect(answer).toMatchObject({ status: 401, body: { detail: 'Incorrect email or password' } })
  })

  test('a session that an operator deletes ends within a second, also for a token in use', async () => {
    const ada = await api.user()
    expect(await works(ada)).toBe(true)
    await api.sql('delete from sessions where user_id = $1', [ada.id])

    const elapsed = stopwatch()
    while (elapsed() < 1000 && (await works(ada))) await Bun.sleep(20)

    expect(await works(ada)).toBe(false)
  })

  test('so does one whose end is committed ten seconds after its time stamp', async () => {
    const ada = await api.user()
    expect(await works(ada)).toBe(true)
    const [{ id }] = (await api.get('/auth/sessions', { token: ada.token })).body
    await api.sql(
      `do $$ begin
        delete from sessions where id = '${id}';
        update session_ends set ended_at = now() - interval '10 seconds' where session_id = '${id}';
      end $$`,
      [],
    )

    const elapsed = stopwatch()
    while (elapsed() < 1000 && (await works(ada))) await Bun.sleep(20)

    expect(await works(ada)).toBe(false)
  })

  test('so does one when the clock of the machine is set back, and its tokens stay refused', async () => {
    const ada = await api.user()
    expect(await works(ada)).toBe(true)
    setSystemTime(Date.now() - 20_000)
    try {
      await api.sql('delete from sessions where user_id = $1', [ada.id])

      const elapsed = stopwatch()
      while (elapsed() < 1000 && (await works(ada))) await Bun.sleep(20)

      expect(await works(ada)).toBe(false)
    } finally {
      setSystemTime()
    }
  })
})
