import type { Answer, Client as Api, Sent } from '../support/harness.ts'
import { type Random, randomFrom } from '../support/random.ts'
import { createRecovery } from '../support/stopwatch.ts'
import { isRefusal } from '../support/traffic.ts'
import { until } from '../support/until.ts'
import {
  type Account,
  audit,
  compareWithSeen,
  type Entry,
  looksLike,
  readTask,
  show,
  type TaskBody,
  type TaskRow,
  type TaskState,
} from './ledger.ts'
import type { Failure, Tally } from './tally.ts'
import { textOf, titleOf } from './texts.ts'

/** How late an answer may be, and when a client gives up on it, in milliseconds. */
const answerMax = 2500
const givesUpAfter = 10_000

const clientsPerUser = 4
const shelfSize = 220
/** A client with more tasks than this deletes some. */
const ownTasksMax = 12

/** One client of a user. */
interface TaskClient {
  account: Account
  session: {
    token: string
    refreshToken: string
    /** When a refresh was sent that has no answer yet. */
    refreshingSince: number | undefined
  }
  random: Random
  own: Entry[]
  /** The first client of a user keeps a copy of all tasks. */
  keepsCopy: boolean
  /** A word that no other text has. */
  newToken(): string
}

export type Clients = Awaited<ReturnType<typeof startClients>>

interface Request extends Sent {
  kind: string
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  path: string
  expected: number[]
}

interface Options {
  seed: number
  users?: number
  tally: Tally
  /** Milliseconds from the call on; what a busy machine adds does not count. */
  stopwatch: () => () => number
  /** Requests in flight lose their connection, because the service itself is killed. */
  losesConnections?: boolean
}

/**
 * 64 clients of 16 users (or four of each), which use the service all the time, each task by task, and check every answer: whose it is,
 * whether it is whole, whether it is as new as what was seen before.
 */
export async function startClients(
  api: Api,
  { seed, users = 16, tally, stopwatch, losesConnections = false }: Options,
) {
  const entries = new Set<Entry>()
  let requests = 0
  let revision = 0
  let refusals = 0
  const recovery = createRecovery(stopwatch)
  let answeredInARow = 0
  let ending = false
  let pause: PromiseWithResolvers<void> | undefined
  let active = 0

  const accounts: Account[] = []
  // One at a time: each begins with large batches, which a busy machine might refuse.
  for (let i = 0; i < users; i++) accounts.push(await openAccount(i))
  const clients: TaskClient[] = []
  // One client of each user at a time: the service limits how many passwords it hashes at once.
  for (let turn = 0; turn < clientsPerUser; turn++) {
    clients.push(
      ...(await Promise.all(accounts.map((account, i) => openClient(account, i * clientsPerUser + turn)))),
    )
  }
  const loops = clients.map(useUntilTheEnd)

  // ---- One request

  /** Sends a request: the answer when it is one of those expected; otherwise the outcome is not known. */
  async function ask(request: Request): Promise<Answer<unknown> | undefined> {
    const { kind, method, path, expected } = request
    const name = `${method} ${path}`
    const elapsed = stopwatch()
    const answer = await Promise.race([
      api.request(method, path, request).catch((error: Error) => error),
      Bun.sleep(givesUpAfter).then(() => new Error(`nothing after ${givesUpAfter} ms`)),
    ])
    const took = elapsed()
    if (took > answerMax && !(answer instanceof Error))
      tally.fail('late answer', `${name}: ${Math.round(took)} ms`)
    if (answer instanceof Error) {
      tally.request(kind, losesConnections ? 'lost' : 'none', took)
      if (!losesConnections) tally.fail('no answer', `${name}: ${answer.message}`)
      return refused(took)
    }
    tally.request(kind, String(answer.status), took)
    if (answer.status === 503 && isRefusal(answer)) return refused(took)
    answeredInARow++
    if (expected.includes(answer.status)) return answer
    tally.fail(failureOf(answer.status), `${name}: ${answer.status} ${show(answer.body)}`)
  }

  function refused(took: number): undefined {
    refusals++
    recovery.refused(took)
    answeredInARow = 0
  }

  const wrong = (kind: string, problem: string) => tally.fail('wrong answer', `${kind}: ${problem}`)

  // ---- Users and their clients

  async function openAccount(index: number): Promise<Account> {
    const mark = `u${String(index).padStart(2, '0')}`
    const user = await api.user(`${mark}-${seed}@example.com`, `password of ${mark}`)
    const account: Account = {
      ...{ mark, id: user.id, email: user.email, password: user.password },
      ...{ shelf: [], entries: new Map(), seen: new Map() },
      copy: { cursor: undefined, versions: new Map() },
    }
    const states = Array.from({ length: shelfSize }, (_, i) => shelfState(mark, i))
    for (let at = 0; at < shelfSize; at += 100) {
      const part = states.slice(at, at + 100)
      const json = { operations: part.map(state => ({ op: 'create', task: contentOf(state) })) }
      const { status, body } = await api.post('/tasks/batch', { token: user.token, json })
      if (status !== 200) throw new Error(`the first tasks were answered ${status}: ${show(body)}`)
      for (const [i, { id }] of (body.results as { id: string }[]).entries()) {
        const entry: Entry = { id, known: part[i]!, doubt: undefined, revision: 0 }
        account.shelf.push(entry)
        account.entries.set(id, entry)
        entries.add(entry)
      }
    }
    return account
  }

  async function openClient(account: Account, index: number): Promise<TaskClient> {
    const { email, password } = account
    const { status, body } = await api.post('/auth/login', { form: { username: email, password } })
    if (status !== 200) throw new Error(`the first sign-in was answered ${status}: ${show(body)}`)
    const name = `c${String(index).padStart(2, '0')}`
    let tokens = 0
    return {
      account,
      session: {
        token: body.access_token,
        refreshToken: body.refresh_token,
        refreshingSince: undefined,
      },
      random: randomFrom(seed + index),
      own: [],
      keepsCopy: index % clientsPerUser === 0,
      newToken: () => `${name}n${String(tokens++).padStart(6, '0')}`,
    }
  }

  async function useUntilTheEnd(client: TaskClient) {
    const { random } = client
    while (!ending) {
      await Bun.sleep(random.between(50, 130))
      await pause?.promise
      if (ending) return
      active++
      await act(client).catch(error => tally.fail('wrong answer', `it broke the client: ${error}`))
      active--
    }
  }

  function act(client: TaskClient): Promise<unknown> {
    const { random, own, keepsCopy, session } = client
    if (session.refreshingSince !== undefined) return refresh(client)
    if (own.filter(isSettled).length > ownTasksMax) return erase(client)
    if (keepsCopy && random.chance(0.2)) return followChanges(client)
    return random.pick(actions)(client)
  }

  // ---- Reading

  async function readOwn(client: TaskClient) {
    const entry = settled(client)
    if (entry) await readEntry(client, entry)
  }

  async function readOther(client: TaskClient) {
    const all = [...client.account.entries.values()]
    if (all.length > 0) await readEntry(client, client.random.pick(all))
  }

  async function readEntry({ account, session }: TaskClient, entry: Entry) {
    const { revision } = entry
    const atLeast = account.seen.get(entry.id!)?.version ?? 0
    const answer = await ask({
      ...{ kind: 'read', method: 'GET', path: `/tasks/${entry.id}`, expected: [200, 404] },
      token: session.token,
    })
    if (!answer) return
    const isUnchanged = entry.revision === revision && !entry.doubt
    if (answer.status === 404) {
      if (isUnchanged && entry.known.presence === 'live') wrong('read', `404 for ${show(entry.known)}`)
      return
    }
    const task = checkTask('read', answer.body, account, atLeast)
    if (!task) return
    if (task.id !== entry.id) wrong('read', `another task: ${show(task)}`)
    if (isUnchanged && !matches(task, entry)) wrong('read', `${show(task)} in place of ${show(entry.known)}`)
  }

  async function readForeign({ account, session, random }: TaskClient) {
    const other = random.pick(accounts.filter(one => one !== account))
    const path = `/tasks/${random.pick(other.shelf).id}`
    await ask({
      kind: 'read of a foreign task',
      method: 'GET',
      path,
      expected: [403, 404],
      token: session.token,
    })
  }

  async function readProfile({ account, session }: TaskClient) {
    const answer = await ask({
      ...{ kind: 'profile', method: 'GET', path: '/users/me', expected: [200] },
      token: session.token,
    })
    if (!answer) return
    const { id, email } = answer.body as { id?: unknown; email?: unknown }
    if (id !== account.id || email !== account.email)
      wrong('profile', `${account.mark} got ${show(answer.body)}`)
  }

  const listLong = (client: TaskClient) => list(client, 'long page', '/tasks?limit=200', 200)
  const listShort = (client: TaskClient) =>
    list(client, 'short page', `/tasks?limit=10&status=pending&offset=${client.random.below(100)}`, 10)

  async function list({ account, session }: TaskClient, kind: string, path: string, length: number) {
    const before = snapshot(account)
    const answer = await ask({ kind, method: 'GET', path, expected: [200], token: session.token })
    if (!answer) return
    const tasks = checkTasks(kind, answer.body, account, before)
    if (!tasks) return
    if (tasks.length !== length) wrong(kind, `${tasks.length} tasks in place of ${length}`)
    if (new Set(tasks.map(task => task.id)).size !== tasks.length) wrong(kind, 'a task twice')
  }

  /** Two pages whose content is known to the last task. */
  async function listShelf({ account, session }: TaskClient) {
    const { mark, shelf } = account
    const kind = 'pages of the shelf'
    let path = `/tasks?tag=${mark}-shelf&sort=title&limit=200`
    for (const expected of [shelf.slice(0, 200), shelf.slice(200)]) {
      const before = snapshot(account)
      const answer = await ask({ kind, method: 'GET', path, expected: [200], token: session.token })
      if (!answer) return
      const tasks = checkTasks(kind, answer.body, account, before)
      if (!tasks) return
      const isRight =
        tasks.length === expected.length && tasks.every((task, i) => task.id === expected[i]!.id)
      if (!isRight) return wrong(kind, `${tasks.length} tasks, not those of the page`)
      const next = answer.headers.get('link')?.match(/^<([^>]+)>; rel="next"$/)?.[1]
      if ((next === undefined) !== (expected.at(-1) === shelf.at(-1)))
        return wrong(kind, `next page: ${next}`)
      if (next) path = new URL(next, api.url).href
    }
  }

  async function search(client: TaskClient) {
    const entry = settled(client)
    if (!entry) return
    const { account, session } = client
    const path = `/tasks?q=${tokenOf(entry.known)}`
    const before = snapshot(account)
    const answer = await ask({ kind: 'search', method: 'GET', path, expected: [200], token: session.token })
    const tasks = answer && checkTasks('search', answer.body, account, before)
    if (!tasks) return
    const isThere = entry.known.presence === 'live'
    if (tasks.length !== Number(isThere) || (isThere && tasks[0]!.id !== entry.id)) {
      wrong('search', `${tasks.length} tasks for ${show(entry.known)}`)
    }
  }

  async function countTasks({ session }: TaskClient) {
    const answer = await ask({
      ...{ kind: 'stats', method: 'GET', path: '/tasks/stats', expected: [200] },
      token: session.token,
    })
    if (!answer) return
    const { total, pending, in_progress, completed } = answer.body as Record<string, number>
    const isWhole = Number(total) >= shelfSize && total === pending! + in_progress! + completed!
    if (!isWhole) wrong('stats', show(answer.body))
  }

  /** Whether it came to the end; a refusal stops it. */
  async function followChanges({ account, session }: TaskClient): Promise<boolean> {
    const { copy } = account
    for (let hasMore = true; hasMore; ) {
      const since = copy.cursor === undefined ? '' : `&since=${encodeURIComponent(copy.cursor)}`
      const answer = await ask({
        ...{ kind: 'changes', method: 'GET', path: `/tasks/changes?limit=200${since}`, expected: [200] },
        token: session.token,
      })
      if (!answer) return false
      const { tasks, deleted, cursor, has_more } = answer.body as Record<string, unknown>
      const read = checkTasks('changes', tasks, account, nothingKnown)
      if (!read || !Array.isArray(deleted) || typeof cursor !== 'string') {
        wrong('changes', show(answer.body))
        return false
      }
      for (const task of read) copy.versions.set(task.id, task.version)
      for (const id of deleted) copy.versions.delete(String(id))
      copy.cursor = cursor
      hasMore = has_more === true
    }
    return true
  }

  // ---- Writing

  interface Write {
    entry: Entry
    next: TaskState
  }

  /** Sends a write and notes what came of it. Without an answer, both the old and the new state are right. */
  async function write(request: Request, writes: Write[]): Promise<Answer<unknown> | undefined> {
    const number = requests++
    for (const { entry, next } of writes) {
      entry.revision = ++revision
      entry.doubt = { state: next, request: number }
      entries.add(entry)
    }
    const answer = await ask(request)
    for (const { entry, next } of writes) {
      entry.revision = ++revision
      if (!answer) continue
      entry.doubt = undefined
      if (answer.status < 300) entry.known = next
    }
    return answer
  }

  async function create(client: TaskClient) {
    await createOnce(client, [await newTask(client)], 1)
  }

  /** The same request twice at the same moment: one task, and both are answered with it. */
  async function createTwice(client: TaskClient) {
    await createOnce(client, [await newTask(client)], 2)
  }

  async function createOnce({ account, session, own }: TaskClient, [next]: TaskState[], times: number) {
    const entry: Entry = {
      id: undefined,
      known: { ...next!, presence: 'gone' },
      doubt: undefined,
      revision: 0,
    }
    const request: Request = {
      ...{ kind: times === 1 ? 'create' : 'create twice', method: 'POST', path: '/tasks', expected: [201] },
      ...{ token: session.token, json: contentOf(next!) },
      // Without a key, a statement that is executed twice makes two tasks, which the audit finds.
      headers: times === 1 ? {} : { 'idempotency-key': tokenOf(next!) },
    }
    own.push(entry)
    const answers = await Promise.all(
      Array.from({ length: times }, () => write(request, [{ entry, next: next! }])),
    )
    const made = answers.filter(answer => answer !== undefined)
    for (const { body } of made) {
      const task = checkTask(request.kind, body, account, 0)
      if (!task) continue
      if (!looksLike(task, next!)) wrong(request.kind, `${show(task)} in place of ${show(next)}`)
      if (entry.id !== undefined && entry.id !== task.id) wrong(request.kind, `two tasks for one key`)
      entry.id = task.id
    }
    if (!entry.id) return
    entry.doubt = undefined
    entry.known = next!
    account.entries.set(entry.id, entry)
  }

  async function update(client: TaskClient) {
    const entry = settled(client, 'live')
    if (!entry) return
    const { random } = client
    const version = client.account.seen.get(entry.id!)?.version
    // Half of them only if nothing has changed: no other client writes to this task, so nothing has.
    const headers = random.chance(0.5) ? { 'if-match': `"${version}"` } : {}
    await changeTask(client, entry, { kind: 'update', headers, expected: [200] })
  }

  async function updateStale(client: TaskClient) {
    const entry = settled(client, 'live')
    const version = entry && client.account.seen.get(entry.id!)?.version
    if (!version) return
    const headers = { 'if-match': `"${version - 1}"` }
    await changeTask(client, entry, { kind: 'update of an old version', headers, expected: [412] })
  }

  async function changeTask(
    { account, session, random, newToken }: TaskClient,
    entry: Entry,
    { kind, headers, expected }: { kind: string; headers: Record<string, string>; expected: number[] },
  ) {
    const change = changeOf(account.mark, newToken(), random)
    const next = { ...entry.known, ...change }
    const atLeast = account.seen.get(entry.id!)?.version ?? 0
    const answer = await write(
      {
        ...{ kind, method: 'PATCH', path: `/tasks/${entry.id}`, expected },
        ...{ token: session.token, json: change, headers },
      },
      [{ entry, next }],
    )
    if (answer?.status !== 200) return
    const task = checkTask(kind, answer.body, account, atLeast)
    if (task && !(task.id === entry.id && looksLike(task, next))) {
      wrong(kind, `${show(task)} in place of ${show(next)}`)
    }
  }

  async function trash(client: TaskClient) {
    const entry = settled(client, 'live')
    if (entry) await remove(client, entry, 'trash', '')
  }

  async function erase(client: TaskClient) {
    const entry = settled(client)
    if (entry) await remove(client, entry, 'gone', '?permanent=true')
  }

  async function remove(
    { session, own }: TaskClient,
    entry: Entry,
    presence: 'trash' | 'gone',
    query: string,
  ) {
    const answer = await write(
      {
        ...{ kind: presence === 'trash' ? 'trash' : 'delete for good', method: 'DELETE' },
        ...{ path: `/tasks/${entry.id}${query}`, expected: [204], token: session.token },
      },
      [{ entry, next: { ...entry.known, presence } }],
    )
    if (answer && presence === 'gone') own.splice(own.indexOf(entry), 1)
  }

  async function restore(client: TaskClient) {
    const entry = settled(client, 'trash')
    if (!entry) return
    const next: TaskState = { ...entry.known, presence: 'live' }
    const answer = await write(
      {
        ...{ kind: 'restore', method: 'POST', path: `/tasks/${entry.id}/restore`, expected: [200] },
        token: client.session.token,
      },
      [{ entry, next }],
    )
    const task = answer && checkTask('restore', answer.body, client.account, 0)
    if (task && !(task.id === entry.id && looksLike(task, next))) wrong('restore', show(task))
  }

  /** Creates two tasks, changes one and puts one into the trash: all of it or nothing. */
  async function batch(client: TaskClient) {
    const { account, session, random, own, newToken } = client
    const states = [await newTask(client), await newTask(client)]
    const made = states.map(
      (state): Entry => ({
        id: undefined,
        known: { ...state, presence: 'gone' },
        doubt: undefined,
        revision: 0,
      }),
    )
    const live = random.shuffled(own.filter(entry => isSettled(entry) && entry.known.presence === 'live'))
    const [changed, trashed] = live
    const change = changeOf(account.mark, newToken(), random)
    const writes: Write[] = made.map((entry, i) => ({ entry, next: states[i]! }))
    const operations: object[] = states.map(state => ({ op: 'create', task: contentOf(state) }))
    if (changed && trashed) {
      writes.push({ entry: changed, next: { ...changed.known, ...change } })
      writes.push({ entry: trashed, next: { ...trashed.known, presence: 'trash' } })
      operations.push({ op: 'update', id: changed.id, task: change }, { op: 'delete', id: trashed.id })
    }
    own.push(...made)
    const answer = await write(
      {
        ...{ kind: 'batch', method: 'POST', path: '/tasks/batch', expected: [200] },
        ...{ token: session.token, json: { operations } },
      },
      writes,
    )
    if (!answer) return
    const { results } = answer.body as { results?: { task: unknown }[] }
    if (!Array.isArray(results) || results.length !== operations.length)
      return wrong('batch', show(answer.body))
    for (const [i, { entry, next }] of writes.entries()) {
      if (next.presence === 'trash') continue
      const task = checkTask('batch', results[i]!.task, account, 0)
      if (!task) continue
      if (!looksLike(task, next)) wrong('batch', `${show(task)} in place of ${show(next)}`)
      entry.id = task.id
    }
    for (const entry of made) if (entry.id) account.entries.set(entry.id, entry)
  }

  // ---- Sessions

  /** A refresh without an answer is sent again: the token before the last one is good for ten seconds. */
  async function refresh(client: TaskClient) {
    const { session } = client
    session.refreshingSince ??= performance.now()
    if (performance.now() - session.refreshingSince > 8000) return signIn(client)
    const answer = await ask({
      ...{ kind: 'refresh', method: 'POST', path: '/auth/refresh', expected: [200] },
      json: { refresh_token: session.refreshToken },
    })
    if (answer) adoptSession(client, answer.body)
  }

  async function signIn(client: TaskClient) {
    const { email, password } = client.account
    const answer = await ask({
      ...{ kind: 'sign-in', method: 'POST', path: '/auth/login', expected: [200] },
      form: { username: email, password },
    })
    if (answer) adoptSession(client, answer.body)
  }

  function adoptSession({ account, session }: TaskClient, body: unknown) {
    const { access_token, refresh_token } = body as Record<string, unknown>
    if (typeof access_token !== 'string' || typeof refresh_token !== 'string') {
      return wrong('tokens', show(body))
    }
    const [, claims = ''] = access_token.split('.')
    const { sub } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub?: unknown }
    if (sub !== account.id) wrong('tokens', `${account.mark} got the token of ${sub}`)
    Object.assign(session, { token: access_token, refreshToken: refresh_token, refreshingSince: undefined })
  }

  /** An error of the database in the middle of everything else: the address is taken. */
  async function registerAgain({ account }: TaskClient) {
    const json = { email: account.email, password: 'something else' }
    await ask({
      kind: 'register a taken address',
      method: 'POST',
      path: '/auth/register',
      expected: [400],
      json,
    })
  }

  // ---- Helpers

  function checkTask(kind: string, value: unknown, account: Account, atLeast: number): TaskBody | undefined {
    const task = readTask(value, account)
    const problem = typeof task === 'string' ? task : compareWithSeen(account, task, atLeast)
    if (problem !== undefined || typeof task === 'string') return void wrong(kind, problem ?? 'no task')
    return task
  }

  function checkTasks(
    kind: string,
    value: unknown,
    account: Account,
    before: Snapshot,
  ): TaskBody[] | undefined {
    if (!Array.isArray(value)) return void wrong(kind, `no list: ${show(value)}`)
    const tasks: TaskBody[] = []
    for (const item of value) {
      const known = before.seen.get((item as TaskBody | null)?.id ?? '')
      const task = checkTask(kind, item, account, known?.version ?? 0)
      if (!task) return undefined
      const entry = account.entries.get(task.id)
      if (entry && entry.revision <= before.revision && !entry.doubt && !matches(task, entry)) {
        wrong(kind, `${show(task)} in place of ${show(entry.known)}`)
      }
      tasks.push(task)
    }
    return tasks
  }

  async function newTask({ account, random, newToken }: TaskClient): Promise<TaskState> {
    const { mark } = account
    const token = newToken()
    const change = changeOf(mark, token, random)
    return { presence: 'live', title: titleOf(mark, token), ...change }
  }

  const snapshot = ({ seen }: Account): Snapshot => ({ revision, seen: new Map(seen) })

  const isSettled = (entry: Entry) => entry.id !== undefined && !entry.doubt

  /** A task of this client whose state is known. */
  function settled({ own, random }: TaskClient, presence?: TaskState['presence']): Entry | undefined {
    const found = own.filter(entry => isSettled(entry) && (!presence || entry.known.presence === presence))
    return found.length > 0 ? random.pick(found) : undefined
  }

  /** Small requests; of those that come twice there are twice as many. */
  const small: ((client: TaskClient) => Promise<void>)[] = [
    ...[readOwn, readOwn, readOther, readForeign, readProfile, readProfile, countTasks, search],
    ...[listShort, listShort],
    ...[create, create, createTwice, update, update, update, updateStale, trash, restore, erase, batch],
    ...[
      registerAgain,
      (client: TaskClient) => (client.random.chance(0.5) ? refresh(client) : signIn(client)),
    ],
  ]
  /** A page of 200 long tasks takes as long as many of them, for the service and for its clients. */
  const actions = [...small, ...small, ...small, listLong, listShelf]

  return {
    accounts,
    /** Waits until every request is answered, and sends no more until `resume`. */
    async pause() {
      pause ??= Promise.withResolvers()
      while (active > 0) await Bun.sleep(5)
    },
    resume() {
      pause?.resolve()
      pause = undefined
    },
    /** Waits until this many requests in a row were answered and not refused; false when that takes too long. */
    async flow(count: number, milliseconds = 8000): Promise<boolean> {
      answeredInARow = 0
      const until = performance.now() + milliseconds
      while (answeredInARow < count && performance.now() < until) await Bun.sleep(5)
      return answeredInARow >= count
    },
    /** How many requests were refused so far. */
    refusals: () => refusals,
    /** Begins now: the milliseconds until the last request began that was refused. */
    measureRecovery: () => recovery.measure(),
    /** A request of every client, or a long page for every user, at the same moment. */
    async burst(what: 'short pages' | 'long pages') {
      if (what === 'short pages') await Promise.all(clients.map(listShort))
      else await Promise.all(clients.slice(0, users).map(listLong))
    },
    /** Compares the database with what the clients know, and notes what is wrong. Only while they pause. */
    async audit(readRows: () => Promise<TaskRow[]>) {
      // A copy that was refused its last changes is old, not wrong.
      const catchUp = (client: TaskClient) => until(() => followChanges(client), 8)
      await Promise.all(clients.filter(client => client.keepsCopy).map(catchUp))
      const { lost, spoilt } = audit(accounts, entries, await readRows())
      for (const text of lost) tally.fail('lost write', text)
      for (const text of spoilt) tally.fail('spoilt row', text)
      for (const client of clients) forgetGone(client)
    },
    /** Lets every client finish what it is doing. */
    async end() {
      ending = true
      pause?.resolve()
      await Promise.all(loops)
    },
  }

  /** After an audit: what is there belongs to its client, what is gone is forgotten. */
  function forgetGone({ account, own }: TaskClient) {
    for (const [id, entry] of account.entries) {
      if (entries.has(entry)) continue
      account.entries.delete(id)
      account.seen.delete(id)
    }
    own.splice(0, own.length, ...own.filter(entry => entries.has(entry)))
    for (const entry of own) if (entry.id) account.entries.set(entry.id, entry)
  }
}

/** What is known of a user's tasks before a request. */
interface Snapshot {
  revision: number
  seen: Account['seen']
}

const nothingKnown: Snapshot = { revision: -1, seen: new Map() }

/** The word that stands in no other task. */
const tokenOf = ({ title }: TaskState) => title.match(/ (\w+)\]/)![1]!

const matches = (task: TaskBody, { known }: Entry) => known.presence === 'live' && looksLike(task, known)

function failureOf(status: number): Failure {
  if (status === 500) return 'status 500'
  return status === 401 ? 'status 401' : 'other status'
}

/** What a client sends of a task. */
function contentOf({ presence: _, ...content }: TaskState) {
  return content
}

function shelfState(mark: string, index: number): TaskState {
  const token = `s${String(index).padStart(3, '0')}`
  return {
    ...{
      presence: 'live',
      title: titleOf(mark, token),
      description: textOf(mark, token, index % 2 === 0 ? 2000 : 100),
    },
    ...{ status: 'pending', priority: 1, tags: [`${mark}-shelf`], due_at: null },
  }
}

function changeOf(mark: string, token: string, random: Random) {
  return {
    description: random.chance(0.1) ? null : textOf(mark, token, random.pick([60, 300, 2000])),
    status: random.pick(['pending', 'in_progress', 'completed']),
    priority: random.below(5),
    tags: random.chance(0.5) ? [mark, `${mark}-${token}`] : [],
    due_at: random.chance(0.5) ? new Date(Date.UTC(2030, 0, 1 + random.below(300))).toISOString() : null,
  }
}
