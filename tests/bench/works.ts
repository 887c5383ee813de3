/** What is asked of the servers. */
import type { Call } from './load.ts'
import { password, type User } from './seed.ts'
import type { Server } from './servers.ts'

export interface Work {
  name: string
  says: string
  /** Leaves tasks behind. */
  writes?: true
  /** Every server must give the same tasks, with the same fields and values. */
  sameAnswers?: true
  /** Who can do it, when not all can. */
  only?: (server: Server) => boolean
  connections?: number
  /** Requests to each server before a figure counts, when not `warmUpRequests`. */
  warmUp?: number
  /** The calls, made once per server; none when the server cannot do it. */
  calls(server: Server, users: User[]): Call[] | Promise<Call[]>
}

/** Where the tasks' addresses begin. */
const prefix = '/api/v1'

/** For servers that check no token, a header names the user. */
const as = ({ id, token }: User) => ({ authorization: `Bearer ${token}`, 'x-user': id })
const json = (user: User) => ({ ...as(user), 'content-type': 'application/json' })

const newTask = JSON.stringify({
  title: 'Bench ########: write the report',
  description: 'Remember to take the blue one, two litres of it, as we said on the phone.',
  priority: 2,
  tags: ['home', 'errands'],
})

const list = (user: User): Call => ({
  method: 'GET',
  path: `${prefix}/tasks?limit=20`,
  headers: as(user),
})
const read = (user: User, i: number): Call => ({
  method: 'GET',
  path: `${prefix}/tasks/${user.tasks[i % user.tasks.length]}`,
  headers: as(user),
})
const create = (user: User): Call => ({
  method: 'POST',
  path: `${prefix}/tasks`,
  headers: json(user),
  body: newTask,
})
const update = (user: User, i: number): Call => ({
  method: 'PATCH',
  path: `${prefix}/tasks/${user.tasks[i % user.tasks.length]}`,
  headers: json(user),
  body: '{"title":"Changed ########: write the report"}',
})

export const works: Work[] = [
  {
    name: 'list',
    says: 'the newest 20 of a user’s 200 tasks',
    sameAnswers: true,
    calls: (_, users) => users.map(list),
  },
  {
    name: 'filter',
    says: 'the second page of 20 of the pending ones, by cursor',
    sameAnswers: true,
    calls: secondPages,
  },
  {
    name: 'read',
    says: 'one task',
    sameAnswers: true,
    calls: (_, users) => users.map(read),
  },
  {
    name: 'create',
    says: 'a new task',
    writes: true,
    calls: (_, users) => users.map(create),
  },
  {
    name: 'update',
    says: 'a new title for a task',
    writes: true,
    calls: (_, users) => users.map(update),
  },
  {
    name: 'changes',
    says: 'what changed since the last look: nothing',
    calls: lastChanges,
  },
  {
    name: 'mix',
    says: '50 % list, 30 % read, 10 % create, 10 % update',
    writes: true,
    calls: (_, users) =>
      users.map((user, i) => {
        const turn = i % 10
        if (turn < 5) return list(user)
        if (turn < 8) return read(user, i)
        return turn === 8 ? create(user) : update(user, i)
      }),
  },
  {
    name: 'login',
    says: 'bcrypt at cost 12, one at a time',
    warmUp: 20,
    only: ({ name }) => ['todo-api', 'fastapi', 'bare hash'].includes(name),
    connections: 1,
    calls: (_, users) =>
      users.slice(0, 100).map(({ email }) => ({
        method: 'POST',
        path: `${prefix}/auth/login`,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({ username: email, password }).toString(),
      })),
  },
]

const sampled = 200

/** Follows the link of each first page: cursors are the server's own. */
async function secondPages(server: Server, users: User[]): Promise<Call[]> {
  const calls: Call[] = []
  for (const user of users.slice(0, sampled)) {
    const { ok, headers } = await ask(server, user, '/tasks?limit=20&status=pending')
    const next = /<([^>]+)>; rel="next"/.exec(headers.get('link') ?? '')?.[1]
    if (!ok || !next) return []
    const { pathname, search } = new URL(next, server.url)
    calls.push({ method: 'GET', path: pathname + search, headers: as(user) })
  }
  return calls
}

/** Goes through all changes to the end: that is where clients are most of the time. */
async function lastChanges(server: Server, users: User[]): Promise<Call[]> {
  const calls: Call[] = []
  for (const user of users.slice(0, sampled)) {
    let path = '/tasks/changes'
    for (let hasMore = true; hasMore; ) {
      const { ok, body } = await ask(server, user, path)
      if (!ok) return []
      const { cursor, has_more } = JSON.parse(body)
      path = `/tasks/changes?since=${encodeURIComponent(cursor)}`
      hasMore = has_more
    }
    calls.push({ method: 'GET', path: prefix + path, headers: as(user) })
  }
  return calls
}

async function ask({ url }: Server, user: User, path: string) {
  const answer = await fetch(url + prefix + path, { headers: as(user) })
  // Always read: an answer that no server reads keeps its connection.
  return { ok: answer.ok, headers: answer.headers, body: await answer.text() }
}
