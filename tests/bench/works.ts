/** What is asked of the servers. */
import type { Call } from './load.ts'
import { type Person, password } from './seed.ts'
import type { Server } from './servers.ts'

export interface Work {
  name: string
  says: string
  /** Leaves tasks behind. */
  writes?: true
  /** Who can do it, when not all can. */
  only?: (server: Server) => boolean
  connections?: number
  /** The calls, made once per server; none when the server cannot do it. */
  calls(server: Server, people: Person[]): Call[] | Promise<Call[]>
}

const isReference = ({ name }: Server) => name === 'FastAPI'
/** Servers that check nobody are told who calls. */
const as = ({ id, token }: Person) => ({ authorization: `Bearer ${token}`, 'x-user': id })
const json = (person: Person) => ({ ...as(person), 'content-type': 'application/json' })

const newTask = JSON.stringify({
  title: 'Bench ########: write the report',
  description: 'Remember to take the blue one, two litres of it, as we said on the phone.',
  priority: 2,
  tags: ['home', 'errands'],
})

const list = ({ prefix, name }: Server, person: Person): Call => ({
  method: 'GET',
  path: isReference({ name } as Server) ? `${prefix}/tasks/` : `${prefix}/tasks?limit=20`,
  headers: as(person),
})
const read = ({ prefix }: Server, person: Person, i: number): Call => ({
  method: 'GET',
  path: `${prefix}/tasks/${person.tasks[i % person.tasks.length]}`,
  headers: as(person),
})
const create = (server: Server, person: Person): Call => ({
  method: 'POST',
  path: `${server.prefix}/tasks${isReference(server) ? '/' : ''}`,
  headers: json(person),
  body: newTask,
})
const update = ({ prefix, name }: Server, person: Person, i: number): Call => ({
  method: name === 'FastAPI' ? 'PUT' : 'PATCH',
  path: `${prefix}/tasks/${person.tasks[i % person.tasks.length]}`,
  headers: json(person),
  body: '{"title":"Changed ########: write the report"}',
})

export const works: Work[] = [
  {
    name: 'list',
    says: 'the newest 20 of a person’s 200 tasks',
    calls: (server, people) => people.map(person => list(server, person)),
  },
  {
    name: 'filter',
    says: 'the second page of 20 of the pending ones, by cursor',
    calls: secondPages,
  },
  {
    name: 'read',
    says: 'one task',
    calls: (server, people) => people.map((person, i) => read(server, person, i)),
  },
  {
    name: 'create',
    says: 'a new task',
    writes: true,
    calls: (server, people) => people.map(person => create(server, person)),
  },
  {
    name: 'update',
    says: 'a new title for a task',
    writes: true,
    calls: (server, people) => people.map((person, i) => update(server, person, i)),
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
    calls: (server, people) =>
      people.map((person, i) => {
        const turn = i % 10
        if (turn < 5) return list(server, person)
        if (turn < 8) return read(server, person, i)
        return turn === 8 ? create(server, person) : update(server, person, i)
      }),
  },
  {
    name: 'login',
    says: 'bcrypt at cost 12, one at a time',
    only: ({ name }) => ['todo-api', 'FastAPI', 'bare hash'].includes(name),
    connections: 1,
    calls: ({ prefix }, people) =>
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
async function secondPages({ url, prefix }: Server, people: Person[]): Promise<Call[]> {
  const calls = people.slice(0, sampled).map(async person => {
    const answer = await fetch(`${url}${prefix}/tasks?limit=20&status=pending`, { headers: as(person) })
    const next = /<([^>]+)>; rel="next"/.exec(answer.headers.get('link') ?? '')?.[1]
    if (!answer.ok || !next) return []
    const { pathname, search } = new URL(next, url)
    return [{ method: 'GET', path: pathname + search, headers: as(person) }]
  })
  return (await Promise.all(calls)).flat()
}

async function lastChanges({ url, prefix }: Server, people: Person[]): Promise<Call[]> {
  const calls = people.slice(0, sampled).map(async person => {
    for (let since = ''; ; ) {
      const path = `${prefix}/tasks/changes${since && `?since=${encodeURIComponent(since)}`}`
      const answer = await fetch(url + path, { headers: as(person) })
      if (!answer.ok) return []
      const { cursor, has_more: hasMore } = (await answer.json()) as { cursor: string; has_more: boolean }
      if (since !== '' && !hasMore) return [{ method: 'GET', path, headers: as(person) }]
      since = cursor
    }
  })
  return (await Promise.all(calls)).flat()
}
