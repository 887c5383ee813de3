import { expect, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import { createStats } from '../src/modules/tasks/stats.ts'
import { onBothDatabases } from './support/harness.ts'

onBothDatabases('the counts', api => {
  test('count by status, what is overdue, what is due today, and the trash', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const now = Temporal.Now.zonedDateTimeISO('UTC')
    const [dawn, midnight] = [now.startOfDay(), now.add({ days: 1 }).startOfDay()].map(at =>
      at!.toInstant().toString(),
    )
    await api.task(ada, { due_at: dawn })
    await api.task(ada, { due_at: dawn, status: 'completed' })
    await api.task(ada, { due_at: midnight, status: 'in_progress' })
    await api.task(ada, { due_at: '2020-01-01T00:00:00Z', status: 'in_progress' })
    await api.task(ada)
    await api.task(bob)
    for (const status of ['pending', 'in_progress', 'completed']) {
      const trashed = await api.task(ada, { due_at: dawn, status })
      await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    }

    const { status, body } = await api.get('/tasks/stats', { token: ada.token })

    expect(status).toBe(200)
    expect(body).toEqual({
      total: 5,
      pending: 2,
      in_progress: 2,
      completed: 1,
      overdue: 2,
      due_today: 1,
      trash: 3,
    })
    const newcomer = await api.user()
    expect(Object.values((await api.get('/tasks/stats', { token: newcomer.token })).body)).toEqual(
      Array(7).fill(0),
    )
  })

  test.each(['Pacific/Kiritimati', 'america/new_york', 'Asia/Kathmandu', 'Etc/GMT-14', 'W-SU', '-11:00'])(
    'today is the day in %s',
    async zone => {
      const ada = await api.user()
      const start = Temporal.Now.zonedDateTimeISO(zone).startOfDay()
      const end = start.add({ days: 1 })
      const second = { seconds: 1 }
      for (const at of [start.subtract(second), start, end.subtract(second), end]) {
        await api.task(ada, { due_at: at.toInstant().toString() })
      }

      const { body } = await api.get(`/tasks/stats?tz=${zone}`, { token: ada.token })

      expect(body.due_today).toBe(2)
    },
  )

  test.each([
    // The clocks change at midnight: these days begin at 01:00 and have 23 hours.
    ['Africa/Cairo', '2026-04-24', 23],
    ['Asia/Beirut', '2026-03-29', 23],
    ['America/Havana', '2026-03-08', 23],
    ['America/Santiago', '2026-09-06', 23],
    ['Europe/Berlin', '2026-03-29', 23],
    ['Europe/Berlin', '2026-10-25', 25],
    ['America/Havana', '2026-11-01', 25],
  ])('the day in %s on %s has %i hours', async (zone, day, hours) => {
    const ada = await api.user()
    const noon = Temporal.PlainDate.from(day).toZonedDateTime({ timeZone: zone, plainTime: '12:00' })
    const start = noon.startOfDay().toInstant()
    const end = start.add({ hours })
    const second = { seconds: 1 }
    for (const at of [start.subtract(second), start, end.subtract(second), end]) {
      await api.task(ada, { due_at: at.toString() })
    }
    const db = createDb({ query: api.sql } as never)
    const statsAt = (now: Temporal.Instant) => createStats(db, () => now)(ada.id, { tz: zone })

    for (const now of [start, noon.toInstant(), end.subtract(second)]) {
      expect((await statsAt(now)).due_today).toBe(2)
    }
    expect((await statsAt(end)).due_today).toBe(1)
  })

  test.each([
    'Nowhere/Land',
    '',
    "' or 1",
    '%00',
    'x'.repeat(65),
    'UTC[u-ca=hebrew]',
    '2026-11-27T00:00Z',
    '%2B002026-11-27T00:00Z',
    '--11-27[UTC]',
    't00:00[UTC]',
  ])('there is no time zone %p', async zone => {
    const ada = await api.user()

    const answer = await api.get(`/tasks/stats?tz=${zone}`, { token: ada.token })

    expect(answer).toMatchObject({ status: 422, body: { detail: [{ loc: ['query', 'tz'] }] } })
  })
})
