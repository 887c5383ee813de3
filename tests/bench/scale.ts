import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { drive } from './load.ts'
import { cpuSeconds } from './measure.ts'
import { median, table } from './report.ts'
import { password, seed, signedIn, type User } from './seed.ts'
import { type Server, startService } from './servers.ts'
import { curvesPicture } from './svg.ts'

interface ScaleOptions {
  executable: string
  newDatabase: (name: string) => Promise<string>
  postgresPid: number
  /** The largest table. */
  max: number
  settings: Record<string, string>
  say: (text: string) => void
}

/** What may get slower as tables grow. The first ones are drawn. */
const pages: { name: string; query: string }[] = [
  { name: 'newest', query: '' },
  { name: 'one status', query: '&status=in_progress' },
  { name: 'sort=due_at', query: '&sort=due_at' },
  { name: 'q, found nowhere', query: '&q=zebra' },
  { name: 'q, found often', query: '&q=milk' },
  { name: 'a tag, found nowhere', query: '&tag=garden' },
  { name: 'priority=4', query: '&priority=4' },
  { name: 'overdue', query: '&overdue=true' },
  { name: 'sort=title', query: '&sort=title' },
  { name: 'sort=-updated_at', query: '&sort=-updated_at' },
  { name: 'offset=9000', query: '&offset=9000' },
  { name: 'total', query: '&total=true' },
]
const drawn = pages.slice(0, 4)

interface Point {
  /** Tasks in the table, or of the user who asks. */
  tasks: number
  page: string
  p50: number
  perSecond: number
  postgresCpu: number
}

/** The same page for users with 200 tasks in larger and larger tables, then for users with more and more in one table. */
export async function measureScale({
  executable,
  newDatabase,
  postgresPid,
  max,
  settings,
  say,
}: ScaleOptions) {
  const url = await newDatabase('scale')
  const service = await startService(executable, url, settings)
  const byTable: Point[] = []
  const byUser: Point[] = []
  const embedded: Point[] = []
  try {
    while (!(await fetch(`${service.url}/health/ready`)).ok) await Bun.sleep(50)
    let users = 0
    for (const tasks of [10_000, 1_000_000, 10_000_000].filter(size => size <= max)) {
      say(`growing to ${tasks.toLocaleString('en')} tasks`)
      await seed(url, { from: users + 1, users: tasks / 200 - users, tasksOf: '200' })
      users = tasks / 200
      // As many users as the smallest table has, spread over the whole: what differs is the table alone.
      const asking = await spread(url, users, 50)
      byTable.push(...(await measure(service, asking, { tasks, limit: 20 }, postgresPid)))
    }
    const sizes = [50, 1000, 10_000, 100_000]
    say(`users with ${sizes.join(', ')} tasks`)
    await seed(url, {
      from: users + 1,
      users: sizes.length,
      tasksOf: `(array[${sizes}])[p.i - ${users}]`,
    })
    const big = await signedIn(url, { from: users + 1, users: sizes.length })
    for (const [i, tasks] of sizes.entries()) {
      // Short pages: every user has a full one, and a next one.
      byUser.push(...(await measure(service, [big[i]!], { tasks, limit: 5 }, postgresPid)))
    }
  } finally {
    await service.stop()
  }
  say('the embedded database')
  for (const tasks of [50, 10_000]) embedded.push(...(await measureEmbedded(executable, settings, tasks)))
  const tables = { 'tasks in the table': byTable, 'tasks of the user': byUser, 'tasks, embedded': embedded }
  for (const [what, points] of Object.entries(tables)) console.log(`${show(what, points)}\n`)
  return { kind: 'scale', at: new Date().toISOString(), byTable, byUser, embedded }
}

/** The same pages of the embedded database, for its only user. */
async function measureEmbedded(
  executable: string,
  settings: Record<string, string>,
  tasks: number,
): Promise<Point[]> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-scale-'))
  const service = await startService(executable, '', { ...settings, DATA_DIR: folder })
  const post = async (path: string, json: object, token?: string) => {
    const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
    const answer = await fetch(`${service.url}/api/v1${path}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(json),
    })
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`)
    return answer.json()
  }
  try {
    while (!(await fetch(`${service.url}/health/ready`)).ok) await Bun.sleep(50)
    const account = { email: 'user@example.com', password }
    await post('/auth/register', account)
    const { access_token: token } = (await post('/auth/login', account)) as { access_token: string }
    for (let n = 0; n < tasks; n += 50) {
      const operations = Array.from({ length: 50 }, (_, i) => ({
        op: 'create',
        task: {
          title: `Task ${n + i}: ${n % 100 ? 'buy milk for the week' : 'call the dentist back'}`,
          description: 'Remember to take the blue one, two litres of it, as we said on the phone.',
          priority: i % 5,
          status: (['pending', 'in_progress', 'completed'] as const)[i % 3]!,
          due_at: i % 2 ? new Date(Date.UTC(2026, 0, 1 + ((n + i) % 700))).toISOString() : null,
          tags: i % 4 ? ['home'] : [],
        },
      }))
      await post('/tasks/batch', { operations }, token)
    }
    const user = { id: '', email: account.email, token, tasks: [] }
    return await measure(service, [user], { tasks, limit: 20 }, service.pid!)
  } finally {
    await service.stop()
    rmSync(folder, { recursive: true })
  }
}

/** p50 over the size of the table and over the size of the user's list, a line a page. */
export function scalePicture({ byTable, byUser }: { byTable: Point[]; byUser: Point[] }): string {
  const curves = (points: Point[]) =>
    drawn.map(({ name }) => ({
      name,
      points: points.filter(({ page }) => page === name).map(({ tasks, p50 }) => ({ x: tasks, y: p50 })),
    }))
  return curvesPicture([
    { title: 'p50 in ms, by tasks in the table', curves: curves(byTable) },
    { title: 'p50 in ms, by tasks of the user', curves: curves(byUser) },
  ])
}

async function spread(url: string, users: number, count: number): Promise<User[]> {
  const step = Math.floor(users / count)
  const found = await Promise.all(
    Array.from({ length: count }, (_, i) => signedIn(url, { from: 1 + i * step, users: 1 })),
  )
  return found.flat()
}

async function measure(
  { url }: Server,
  users: User[],
  { tasks, limit }: { tasks: number; limit: number },
  postgresPid: number,
): Promise<Point[]> {
  const points: Point[] = []
  for (const { name, query } of pages) {
    const calls = users.map(({ token }) => ({
      method: 'GET',
      path: `/api/v1/tasks?limit=${limit}${query}`,
      headers: { authorization: `Bearer ${token}` },
    }))
    const answer = await fetch(url + calls[0]!.path, { headers: calls[0]!.headers })
    await answer.text()
    if (!answer.ok) continue
    // One connection: how long the answer takes, not how long the queue is.
    await drive(url, calls, 1, 1)
    const rounds: Omit<Point, 'tasks' | 'page'>[] = []
    for (let i = 0; i < 3; i++) {
      const before = cpuSeconds(postgresPid)
      const { requests, seconds, p50 } = await drive(url, calls, 1, 1)
      rounds.push({
        p50,
        perSecond: requests / seconds,
        postgresCpu: ((cpuSeconds(postgresPid) - before) / requests) * 1e6,
      })
    }
    const middle = (of: (round: (typeof rounds)[number]) => number) => median(rounds.map(of))
    points.push({
      tasks,
      page: name,
      p50: middle(r => r.p50),
      perSecond: middle(r => r.perSecond),
      postgresCpu: middle(r => r.postgresCpu),
    })
  }
  return points
}

function show(what: string, points: Point[]): string {
  const sizes = [...new Set(points.map(({ tasks }) => tasks))]
  const names = [...new Set(points.map(({ page }) => page))]
  const of = (page: string, tasks: number) =>
    points.find(point => point.page === page && point.tasks === tasks)!
  const rows = names.map(name => {
    const times = sizes.map(size => of(name, size).p50)
    return [name, ...times.map(time => time.toFixed(2)), (times.at(-1)! / times[0]!).toFixed(2)]
  })
  return `p50 in ms by ${what}\n\n${table([['page', ...sizes.map(size => size.toLocaleString('en')), 'last ÷ first'], ...rows])}`
}
