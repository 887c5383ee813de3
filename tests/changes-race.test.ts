import { expect, test } from 'bun:test'
import { type Answer, onBothDatabases, type Service } from './support/harness.ts'

/** How long every client writes and reads, in seconds. Longer by hand: `RACE_SECONDS=30 bun test tests/changes-race.test.ts`. */
const seconds = Number(Bun.env.RACE_SECONDS ?? 3)

const oneOf = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!

/** Writes whatever comes to its mind to a small set of tasks that all writers share. */
async function write(api: Service, token: string, until: number, ids: string[]): Promise<number> {
  const calls: (() => Promise<Answer>)[] = [
    () => api.post('/tasks', { token, json: { title: 'new' } }),
    () =>
      api.post('/tasks', {
        token,
        json: { title: 'once' },
        headers: { 'idempotency-key': oneOf('abc'.split('')) },
      }),
    () => api.patch(`/tasks/${oneOf(ids)}`, { token, json: { title: `${Math.random()}` } }),
    () => api.patch(`/tasks/${oneOf(ids)}`, { token, json: { title: `${Math.random()}` } }),
    () => api.patch(`/tasks/${oneOf(ids)}`, { token, json: { priority: 1 }, headers: { 'if-match': '"5"' } }),
    () => api.delete(`/tasks/${oneOf(ids)}`, { token }),
    () => api.post(`/tasks/${oneOf(ids)}/restore`, { token }),
    () => api.delete(`/tasks/${oneOf(ids)}?permanent=true`, { token }),
    () => api.delete('/tasks/trash', { token }),
    () =>
      api.post('/tasks/batch', {
        token,
        json: {
          operations: [
            { op: 'create', task: { title: 'batch' } },
            ...[...new Set([oneOf(ids), oneOf(ids), oneOf(ids)])].map(id => ({
              op: 'update',
              id,
              task: { title: `${Math.random()}` },
            })),
          ],
        },
      }),
  ]
  let written = 0
  while (performance.now() < until) {
    const { status, body } = await oneOf(calls)()
    expect([200, 201, 204, 404, 409, 412]).toContain(status)
    if (status < 300) written++
    if (status === 201) ids[Math.floor(Math.random() * 60)] = body.id
  }
  return written
}

/** Searches now and then, so that the words are indexed all the while. */
async function search(api: Service, token: string, until: number) {
  while (performance.now() < until) {
    expect((await api.get('/tasks?q=batch', { token })).status).toBe(200)
    await Bun.sleep(50)
  }
}

/** Keeps a copy from the changes alone; `pause` in milliseconds between two looks. */
function createReader(api: Service, token: string, pause: number) {
  const copy = new Map<string, { id: string; version: number }>()
  let cursor = ''
  let newest = 0
  let polls = 0
  let changes = 0

  async function poll(): Promise<boolean> {
    const { status, body } = await api.get(`/tasks/changes?limit=200${cursor && `&since=${cursor}`}`, {
      token,
    })
    expect(status).toBe(200)
    for (const task of body.tasks) {
      // In order and never again: a number that was there is over.
      expect(task.version).toBeGreaterThan(newest)
      newest = task.version
      copy.set(task.id, task)
    }
    for (const id of body.deleted) copy.delete(id)
    polls++
    changes += body.tasks.length + body.deleted.length
    cursor = body.cursor
    return body.has_more
  }

  return {
    copy,
    async follow(until: number) {
      while (performance.now() < until) {
        await poll()
        await Bun.sleep(pause)
      }
    },
    async catchUp() {
      while (await poll()) {}
    },
    get summary() {
      return `${polls} polls, ${changes} changes, ${copy.size} tasks`
    },
  }
}

onBothDatabases('eight writers and four readers', api => {
  test(
    `each reader's copy is the list, nothing missed and nothing doubled`,
    async () => {
      const { id: user, token } = await api.user()
      const ids: string[] = []
      for (let i = 0; i < 60; i++) ids.push((await api.task({ token })).id)
      const until = performance.now() + seconds * 1000
      const readers = [0, 1, 10, seconds * 250].map(pause => createReader(api, token, pause))

      const [written] = await Promise.all([
        Promise.all(Array.from({ length: 8 }, () => write(api, token, until, ids))),
        search(api, token, until),
        ...readers.map(reader => reader.follow(until)),
      ])
      for (const reader of readers) await reader.catchUp()

      const rows = await api.sql(
        'select id, version from tasks where user_id = $1 and deleted_at is null order by version',
        [user],
      )
      for (const { copy } of readers) {
        const tasks = [...copy.values()].toSorted((a, b) => a.version - b.version)
        expect(tasks.map(({ id, version }): unknown[] => [id, version])).toEqual(rows)
      }
      if (Bun.env.RACE_SECONDS) {
        console.log(`${api.kind}: ${written.reduce((a, b) => a + b)} writes, ${rows.length} tasks`)
        for (const reader of readers) console.log(reader.summary)
      }
    },
    (seconds + 30) * 1000,
  )
})
