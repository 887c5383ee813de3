import { expect, test } from 'bun:test'
import { makeApiToken } from './support/api-token.ts'
import { bareApp } from './support/bare-app.ts'
import { onBothDatabases, type Service } from './support/harness.ts'

/** The jobs of a second service on the same database. */
const jobsOn = ({ kind, sql }: Service) => bareApp({ kind, query: sql }).jobs

/** One of them, to be run now. */
const jobOf = (api: Service, job: string) => jobsOn(api).find(({ name }) => name === job)!

onBothDatabases('the clean-up', api => {
  const rows = async (sql: string) => (await api.sql(sql, [])).map(([first]) => first)

  test('runs every ten minutes, at one time, and what streams wait for several times a second', () => {
    expect(Object.fromEntries(jobsOn(api).map(({ name, everySeconds }) => [name, everySeconds]))).toEqual({
      'clean up sessions': 600,
      'clean up API tokens': 600,
      'clean up revocations': 600,
      'clean up limits': 600,
      'clean up tickets': 600,
      'purge the trash': 600,
      'poll versions': 0.16,
      'check the tokens of streams': 0.25,
    })
  })

  test('removes sessions that are over, and no other', async () => {
    await api.sql('delete from sessions', [])
    const ada = await api.user()
    const eve = await api.user()
    await api.sql(`update sessions set expires_at = now() + interval '1 minute' where user_id = $1`, [ada.id])
    await api.sql(`update sessions set expires_at = now() - interval '1 second' where user_id = $1`, [eve.id])

    await jobOf(api, 'clean up sessions').run()

    expect(await rows('select user_id from sessions')).toEqual([ada.id])
    expect((await api.get('/users/me', { token: ada.token })).status).toBe(200)
  })

  test('removes at most ten thousand sessions at once, because each replica reads every end', async () => {
    const { id } = await api.user()
    await api.sql('delete from sessions', [])
    await api.sql(
      `insert into sessions (id, user_id, token_hash, expires_at)
        select gen_random_uuid(), $1::uuid, i::text, now() from generate_series(1, 10002) i`,
      [id],
    )

    await jobOf(api, 'clean up sessions').run()

    expect(await rows('select count(*)::int from sessions')).toEqual([2])
  })

  test('removes API tokens that have expired, and no other', async () => {
    const ada = await api.user()
    const never = await makeApiToken(api, ada, ['tasks:read'], { expires_at: null })
    const soon = await makeApiToken(api, ada)
    const past = await makeApiToken(api, ada)
    await api.sql(`update api_tokens set expires_at = now() - interval '1 second' where id = $1`, [past.id])

    await jobOf(api, 'clean up API tokens').run()

    expect(await rows('select id from api_tokens order by id')).toEqual([never.id, soon.id])
  })

  test('removes notes of ended sessions when every replica has long read them, and those of a clock that was wrong', async () => {
    await api.sql('delete from session_ends', [])
    for (const age of [
      '-1 day',
      '-6 minutes',
      '30 seconds',
      '4 minutes 50 seconds',
      '5 minutes 1 second',
      '1 day',
    ]) {
      await api.sql('insert into session_ends values (gen_random_uuid(), now() - $1::interval)', [age])
    }

    await jobOf(api, 'clean up revocations').run()

    expect(
      await rows(`select (extract(epoch from now() - ended_at) / 100)::int from session_ends order by 1`),
    ).toEqual([0, 3])
  })

  test('notes when a session ended, however long ago its transaction began', async () => {
    const { id } = await api.user()
    await api.driver.transaction(async query => {
      // The clock of the embedded database has milliseconds.
      await query('select pg_sleep(0.01)', [])
      await query('delete from sessions where user_id = $1', [id])
      const [note] = await query('select max(ended_at) > now() from session_ends', [])
      expect(note).toEqual([true])
    })
  })

  test('removes tickets that have expired, and no other', async () => {
    const ada = await api.user()
    const issue = () => api.post('/auth/tickets', { token: ada.token, json: { for: 'events' } })
    await issue()
    await api.sql(`update tickets set expires_at = now() - interval '1 second'`, [])
    await issue()

    await jobOf(api, 'clean up tickets').run()

    expect(await rows('select expires_at > now() from tickets')).toEqual([true])
  })

  test('removes counters an hour after they have run out, and those of a clock that was wrong', async () => {
    const ends = {
      'in three hours': 3 * 60 * 60_000,
      'in nearly two hours': 119 * 60_000,
      counting: 60_000,
      'run out': -1000,
      'nearly an hour ago': -59 * 60_000,
      'an hour ago': -61 * 60_000,
    }
    for (const [key, ms] of Object.entries(ends)) {
      await api.sql('insert into rate_limits values ($1, 1, $2)', [key, Date.now() + ms])
    }

    await jobOf(api, 'clean up limits').run()

    expect(await rows('select key from rate_limits order by expire desc')).toEqual([
      'in nearly two hours',
      'counting',
      'run out',
      'nearly an hour ago',
    ])
  })
})
