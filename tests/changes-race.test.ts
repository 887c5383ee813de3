import { expect, test } from 'bun:test'
import { withEffort } from './support/effort.ts'
import { type Answer, type Client, type DatabaseKind, startService } from './support/harness.ts'
import { privateDatabase } from './support/template.ts'

/** How long every client writes and reads, in seconds. */
const seconds = withEffort(3)

const oneOf = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!

/** Writes whatever comes to its mind to a small set of tasks and lists that all writers share. */
async function write(
  api: Client,
  token: string,
  until: number,
  { tasks: ids, lists }: { tasks: string[]; lists: string[] },
): Promise<number> {
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
    () => api.post('/lists', { token, json: { name: 'new' } }),
    () => api.patch(`/lists/${oneOf(lists)}`, { token, json: { name: `${Math.random()}` } }),
    () => api.delete(`/lists/${oneOf(lists)}?tasks=${oneOf(['keep', 'keep', 'trash'])}`, { token }),
    () => api.patch(`/tasks/${oneOf(ids)}`, { token, json: { list_id: oneOf([null, ...lists]) } }),
    () => api.patch(`/tasks/${oneOf(ids)}`, { token, json: { parent_id: oneOf([null, ...ids]) } }),
    () => api.post('/tasks', { token, json: { title: 'child', parent_id: oneOf(ids) } }),
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
    // 422: a list or a parent that has gone meanwhile, or a parent that would be nested.
    expect([200, 201, 204, 404, 409, 412, 422]).toContain(status)
    if (status < 300) written++
    if (status !== 201) continue
    if ('name' in body) lists[Math.floor(Math.random() * 5)] = body.id
    else ids[Math.floor(Math.random() * 60)] = body.id
  }
  return written
}

/** Searches now and then, so that the words are indexed all the while. */
async function search(api: Client, token: string, until: number) {
  while (performance.now() < until) {
    expect((await api.get('/tasks?q=batch', { token })).status).toBe(200)
    await Bun.sleep(50)
  }
}

type Row = { id: string; version: number }

/** Keeps a copy from the changes alone; `pause` in milliseconds between two looks. */
function createReader(api: Client, token: string, pause: number) {
  const copy = { tasks: new Map<string, Row>(), lists: new Map<string, Row>() }
  let cursor = ''
  let newest = 0
  let polls = 0
  let changes = 0

  async function poll(): Promise<boolean> {
    const { status, body } = await api.get(`/tasks/changes?limit=200${cursor && `&since=${cursor}`}`, {
      token,
    })
    expect(status).toBe(200)
    const changed: Row[][] = [body.tasks, body.lists]
    for (const rows of changed) {
      // In order and never again: a number that was there is over.
      const versions = [newest, ...rows.map(({ version }) => version)]
      expect(versions).toEqual([...new Set(versions)].toSorted((a, b) => a - b))
    }
    newest = Math.max(newest, ...changed.flat().map(({ version }) => version))
    for (const task of body.tasks) copy.tasks.set(task.id, task)
    for (const list of body.lists) copy.lists.set(list.id, list)
    for (const id of body.deleted) copy.tasks.delete(id)
    for (const id of body.deleted_lists) copy.lists.delete(id)
    polls++
    changes += [...body.tasks, ...body.lists, ...body.deleted, ...body.deleted_lists].length
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
      return `${polls} polls, ${changes} changes, ${copy.tasks.size} tasks, ${copy.lists.size} lists`
    },
  }
}

/** On PostgreSQL two replicas, whose users write and read on both; the embedded database has one process. */
async function startReplicas(kind: DatabaseKind) {
  const database = kind === 'postgres' ? await privateDatabase() : undefined
  const settings = { DATABASE_URL: database?.url }
  const one = await startService(kind, settings)
  const replicas = database ? [one, await startService(kind, settings)] : [one]
  return {
    replicas,
    sql: one.sql,
    async stop() {
      for (const replica of replicas) await replica.stop()
      await database?.drop()
    },
  }
}

test.each(['postgres', 'embedded'] as const)(
  `eight writers and four readers: each reader's copy is what there is, nothing missed and nothing doubled (%s)`,
  async kind => {
    const { replicas, sql, stop } = await startReplicas(kind)
    const replica = (i: number) => replicas[i % replicas.length]!
    try {
      const { id: user, token } = await replica(0).user()
      const known = { tasks: [] as string[], lists: [] as string[] }
      for (let i = 0; i < 60; i++) known.tasks.push((await replica(i).task({ token })).id)
      for (let i = 0; i < 5; i++)
        known.lists.push((await replica(i).post('/lists', { token, json: { name: 'first' } })).body.id)
      const until = performance.now() + seconds * 1000
      const readers = [0, 1, 10, seconds * 250].map((pause, i) => createReader(replica(i), token, pause))

      const [written] = await Promise.all([
        Promise.all(Array.from({ length: 8 }, (_, i) => write(replica(i), token, until, known))),
        search(replica(0), token, until),
        ...readers.map(reader => reader.follow(until)),
      ])
      for (const reader of readers) await reader.catchUp()

      const rowsOf = (table: string) =>
        sql(`select id, version from ${table} where user_id = $1 order by version`, [user])
      const tasks = await rowsOf('(select * from tasks where deleted_at is null) tasks')
      const lists = await rowsOf('lists')
      const inOrder = (rows: Map<string, Row>) =>
        [...rows.values()]
          .toSorted((a, b) => a.version - b.version)
          .map(({ id, version }): unknown[] => [id, version])
      for (const { copy } of readers)
        expect([inOrder(copy.tasks), inOrder(copy.lists)]).toEqual([tasks, lists])
      const broken = await sql(
        `select child.id from tasks child left join tasks parent on parent.id = child.parent_id
         where child.parent_id is not null and child.deleted_at is null
           and (parent.id is null or parent.deleted_at is not null or parent.parent_id is not null)`,
        [],
      )
      expect(broken).toEqual([])
      if (seconds > 3) {
        const count = written.reduce((a, b) => a + b)
        console.log(`${kind}: ${count} writes, ${tasks.length} tasks, ${lists.length} lists`)
        for (const reader of readers) console.log(reader.summary)
      }
    } finally {
      await stop()
    }
  },
  (seconds + 40) * 1000,
)
