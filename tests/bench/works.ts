/** What is asked of the servers. */
import type { Call } from './load.ts'
import { type Person, password } from './seed.ts'
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
  calls(server: Server, people: Person[]): Call[] | Promise<Call[]>
}

/** Where the tasks' addresses begin. */
const prefix = '/api/v1'

/** Servers that check nobody are told who calls. */
const as = ({ id, token }: Person) => ({ authorization: `Bearer ${token}`, 'x-user': id })
const json = (person: Person) => ({ ...as(person), 'content-type': 'application/json' })

const newTask = JSON.stringify({
  title: 'Bench ########: write the report',
  description: 'Remember to take the blue one, two litres of it, as we said on the phone.',
  priority: 2,
  tags: ['home', 'errands'],
})

const list = (person: Person): Call => ({
  method: 'GET',
  path: `${prefix}/tasks?limit=20`,
  headers: as(person),
})
const read = (person: Person, i: number): Call => ({
  method: 'GET',
  path: `${prefix}/tasks/${person.tasks[i % person.tasks.length]}`,
  headers: as(person),
})
const create = (person: Person): Call => ({
  method: 'POST',
  path: `${prefix}/tasks`,
  headers: json(person),
  body: newTask,
})
const update = (person: Person, i: number): Call => ({
  method: 'PATCH',
  path: `${prefix}/tasks/${person.tasks[i % person.tasks.length]}`,
  headers: json(person),
  body: '{"title":"Changed ########: write the report"}',
})

export const works: Work[] = [
  {
    name: 'list',
    says: 'the newest 20 of a person’s 200 tasks',
    sameAnswers: true,
    calls: (_, people) => people.map(list),
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
    calls: (_, people) => people.map(read),
  },
  {
    name: 'create',
    says: 'a new task',
    writes: true,
    calls: (_, people) => people.map(create),
  },
  {
    name: 'update',
    says: 'a new title for a task',
    writes: true,
    calls: (_, people) => people.map(update),
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
    calls: (_, people) =>
      people.map((person, i) => {
        const turn = i % 10
        if (turn < 5) return list(person)
        if (turn < 8) return read(person, i)
        return turn === 8 ? create(person) : update(person, i)
      }),
  },
  {
    name: 'login',
    says: 'bcrypt at cost 12, one at a time',
    warmUp: 20,
    only: ({ name }) => ['todo-api', 'fastapi', 'bare hash'].includes(name),
    connections: 1,
    calls: (_, people) =>
      people.slice(0, 100).map(({ email }) => ({
        method: 'POST',
        path: `${prefix}/auth/login`,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({ username: email, password }).toString(),
      })),
  },
]

const sampled = 200

/** Follows the link of each first page: cursors are the server's own. */
async function secondPages(server: Server, people: Person[]): Promise<Call[]> {
  const calls: Call[] = []
  for (const person of people.slice(0, sampled)) {
    const { ok, headers } = await ask(server, person, '/tasks?limit=20&status=pending')
    const next = /<([^>]+)>; rel="next"/.exec(headers.get('link') ?? '')?.[1]
    if (!ok || !next) return []
    const { pathname, search } = new URL(next, server.url)
    calls.push({ method: 'GET', path: pathname + search, headers: as(person) })
  }
  return calls
}

/** Goes through all changes to the end: that is where clients are most of the time. */
async function lastChanges(server: Server, people: Person[]): Promise<Call[]> {
  const calls: Call[] = []
  for (const person of people.slice(0, sampled)) {
    let path = '/tasks/changes'
    for (let hasMore = true; hasMore; ) {
      const { ok, body } = await ask(server, person, path)
      if (!ok) return []
      const { cursor, has_more } = JSON.parse(body)
      path = `/tasks/changes?since=${encodeURIComponent(cursor)}`
      hasMore = has_more
    }
    calls.push({ method: 'GET', path: prefix + path, headers: as(person) })
  }
  return calls
}

async function ask({ url }: Server, person: Person, path: string) {
  const answer = await fetch(url + prefix + path, { headers: as(person) })
  // Always read: an answer that nobody reads keeps its connection.
  return { ok: answer.ok, headers: answer.headers, body: await answer.text() }
}
