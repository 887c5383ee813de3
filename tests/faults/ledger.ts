import { isWholeText, isWholeTitle } from './texts.ts'

/** What a user can see of a task, where it is, and nothing that the service decides by itself. */
export interface TaskState {
  presence: 'live' | 'trash' | 'gone'
  title: string
  description: string | null
  status: string
  priority: number
  tags: string[]
  due_at: string | null
}

/** One task of one client: what it was answered last, and what a write without an answer may have made of it. */
export interface Entry {
  id: string | undefined
  known: TaskState
  doubt: Doubt | undefined
  /** The number of its last beginning or end of a write: none since a read began means that nothing was written. */
  revision: number
}

interface Doubt {
  state: TaskState
  /** Writes of one request share it: all of them happened or none. */
  request: number
}

/** The parts of a task in an answer. */
export interface TaskBody extends Omit<TaskState, 'presence'> {
  id: string
  user_id: string
  version: number
}

export interface Account {
  mark: string
  id: string
  email: string
  password: string
  /** Long tasks that never change, in the order of their titles; by id, too. */
  shelf: Entry[]
  entries: Map<string, Entry>
  /** The newest version of each task that was in an answer, and what it looked like then. */
  seen: Map<string, { version: number; digest: number | bigint }>
  copy: SyncCopy
}

/** What a client knows that follows the changes. */
export interface SyncCopy {
  cursor: string | undefined
  versions: Map<string, number>
}

const taskKeys = ['id', 'user_id', 'title', 'description', 'status', 'priority', 'tags', 'due_at', 'version']
const statuses = ['pending', 'in_progress', 'completed']
const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/

/** A value of an answer as a task of this user, or what is wrong with it. */
export function readTask(value: unknown, { id, mark }: Account): TaskBody | string {
  if (typeof value !== 'object' || value === null) return `no task: ${show(value)}`
  const task = value as TaskBody
  const missing = taskKeys.filter(key => !(key in value))
  if (missing.length > 0) return `a task without ${missing}: ${show(value)}`
  const isWhole =
    uuid.test(task.id) &&
    isWholeTitle(task.title, mark) &&
    (task.description === null || isWholeText(task.description, mark)) &&
    statuses.includes(task.status) &&
    Number.isInteger(task.priority) &&
    Array.isArray(task.tags) &&
    task.tags.every(tag => typeof tag === 'string' && tag.startsWith(mark)) &&
    (task.due_at === null || !Number.isNaN(Date.parse(task.due_at))) &&
    Number.isSafeInteger(task.version)
  if (task.user_id !== id) return `a task of another user: ${show(value)}`
  return isWhole ? task : `not a whole task of ${mark}: ${show(value)}`
}

/** Whether a task is in the given state, presence aside. */
export function looksLike(task: Omit<TaskState, 'presence'>, state: TaskState): boolean {
  return (
    task.title === state.title &&
    task.description === state.description &&
    task.status === state.status &&
    task.priority === state.priority &&
    String(task.tags) === String(state.tags) &&
    momentOf(task.due_at) === momentOf(state.due_at)
  )
}

const momentOf = (text: string | null) => (text === null ? null : Date.parse(text))

/**
 * Compares a task with all that its user has seen of it: versions never go back, and one version always looks the
 * same. `atLeast` is the version that was seen before the request was sent.
 */
export function compareWithSeen(account: Account, task: TaskBody, atLeast: number): string | undefined {
  if (task.version < atLeast) return `version ${task.version} of ${task.id} after ${atLeast}`
  const { id, title, description, status, priority, tags, due_at } = task
  const digest = Bun.hash(JSON.stringify([title, description, status, priority, tags, due_at]))
  const before = account.seen.get(id)
  if (before?.version === task.version && before.digest !== digest) {
    return `version ${task.version} of ${id} looked otherwise before`
  }
  if (!before || before.version < task.version) account.seen.set(id, { version: task.version, digest })
}

/** A row as it is in the database, or as the API lists it. */
export interface TaskRow extends TaskState {
  id: string
  user_id: string
  version: number
}

/** Whether the stored JSON of a row says what its columns say. */
export function isCopy(json: string, row: TaskRow): boolean {
  const copy = JSON.parse(json)
  return (
    copy.id === row.id && copy.user_id === row.user_id && copy.version === row.version && looksLike(copy, row)
  )
}

export interface AuditResult {
  lost: string[]
  spoilt: string[]
}

/**
 * Compares every task of the database with what the clients were answered. What was in doubt is settled by that: the
 * next audit expects what is there now.
 */
export function audit(accounts: Account[], entries: Set<Entry>, rows: TaskRow[]): AuditResult {
  const lost: string[] = []
  const spoilt: string[] = []
  const byTitle = Map.groupBy(rows, row => row.title)
  const outcomes = new Map<number, Set<'done' | 'not done'>>()

  for (const entry of entries) {
    const { known, doubt } = entry
    const found = byTitle.get(known.title) ?? []
    byTitle.delete(known.title)
    if (found.length > 1) spoilt.push(`${found.length} tasks ${known.title}`)
    const row = found[0]
    const isKnown = isIn(known, row)
    const isDone = doubt !== undefined && isIn(doubt.state, row)
    if (!isKnown && !isDone) {
      const expected = doubt ? `${show(known)} or ${show(doubt.state)}` : show(known)
      lost.push(`expected ${expected}, found ${show(row)}`)
    }
    if (entry.id && row && entry.id !== row.id) spoilt.push(`${known.title} has another id`)
    if (doubt && isKnown !== isDone) noteOutcome(doubt.request, isDone)
    settle(entry, row)
  }
  for (const [request, seen] of outcomes) {
    if (seen.size > 1) spoilt.push(`request ${request} was carried out by half`)
  }
  for (const title of byTitle.keys()) spoilt.push(`a task that no client has written: ${title}`)
  for (const account of accounts) spoilt.push(...copyFaults(account, rows))
  return { lost, spoilt }

  function noteOutcome(request: number, isDone: boolean) {
    const seen = outcomes.get(request) ?? new Set()
    outcomes.set(request, seen.add(isDone ? 'done' : 'not done'))
  }

  function settle(entry: Entry, row: TaskRow | undefined) {
    entry.doubt = undefined
    entry.id ??= row?.id
    entry.known = row ? { ...row } : { ...entry.known, presence: 'gone' }
    if (!row) entries.delete(entry)
  }
}

function isIn(state: TaskState, row: TaskRow | undefined): boolean {
  if (!row || state.presence === 'gone') return !row === (state.presence === 'gone')
  return row.presence === state.presence && looksLike(row, state)
}

/** A copy that followed all changes holds exactly the live tasks, each in its version. One that is wrong begins again. */
function copyFaults(account: Account, rows: TaskRow[]): string[] {
  const { id, mark, copy } = account
  if (copy.cursor === undefined) return []
  const live = new Map(
    rows.filter(row => row.user_id === id && row.presence === 'live').map(row => [row.id, row.version]),
  )
  const missing = [...live].filter(([task, version]) => copy.versions.get(task) !== version).length
  const ghosts = [...copy.versions.keys()].filter(task => !live.has(task)).length
  if (missing + ghosts === 0) return []
  account.copy = { cursor: undefined, versions: new Map() }
  return [`the copy of ${mark}: ${missing} not as they are, ${ghosts} ghosts`]
}

export function show(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').replace(/("[^"]{60})[^"]*/g, '$1…').slice(0, 300)
}
