/** Lists of tasks: pages of the service, or of the copy in this browser while the service cannot be reached. */
import type { Account } from './account.ts'
import type { Change } from './copy.ts'
import { Problem } from './problem.ts'
import type { components } from './schema.d.ts'

export type Task = components['schemas']['Task']
export type Fields = components['schemas']['TaskUpdate']

export interface Filter {
  status: Task['status'] | ''
  /** The id of a list; of all, when it is empty. */
  list: string
  q: string
}

type Shown = Pick<
  Task,
  'id' | 'version' | 'title' | 'description' | 'status' | 'priority' | 'due_at' | 'list_id'
>

/** A task with the changes that wait to be sent. `theirs`: the service's task, if it has changed meanwhile. */
export interface ShownTask extends Shown {
  isWaiting: boolean
  theirs?: Task
  /** The user has deleted it, which the service has refused. */
  isDeleted?: boolean
}

export interface Page {
  tasks: Task[]
  /** Where the next page begins; none on the last one. */
  next?: string | undefined
}

const pageSize = 20

export async function listPage(
  { api }: Account,
  { status, list, q }: Filter,
  cursor?: string,
): Promise<Page> {
  const query = {
    limit: pageSize,
    cursor,
    status: status ? [status] : undefined,
    list: list ? [list] : undefined,
    q: q || undefined,
  }
  const { data, error, response } = await api.GET('/api/v1/tasks', { params: { query } })
  if (error) throw new Problem(response, error)
  return { tasks: data, next: nextCursor(response) }
}

/** The `Link` header holds the address of the next page, from the path on. */
function nextCursor({ headers, url }: Response): string | undefined {
  const link = headers.get('link')?.match(/<([^>]+)>; rel="next"/)?.[1]
  return (link && new URL(link, url).searchParams.get('cursor')) || undefined
}

/** All tasks of the copy that fit, newest first. */
export async function listCopy({ copy }: Account, filter: Filter): Promise<Page> {
  const tasks = await (await copy).getAll('tasks')
  const found = tasks.filter(task => fits(task, filter))
  return { tasks: found.sort((a, b) => b.created_at.localeCompare(a.created_at)) }
}

/** Tasks as the user has changed them; new ones come first. */
export function withChanges(tasks: Task[], changes: Change[], filter: Filter): ShownTask[] {
  const shown = new Map<string, ShownTask>()
  for (const { op, id, fields } of changes.toReversed()) {
    if (op === 'create') shown.set(id, { ...blank, ...fields, id, isWaiting: true })
  }
  for (const task of tasks) shown.set(task.id, { ...task, isWaiting: false })
  for (const { op, id, fields, theirs } of changes) {
    const task = theirs ? { ...theirs, theirs } : shown.get(id)
    const isDeleted = op === 'delete'
    // A deletion may wait behind a refused change: the user must see that.
    if (isDeleted && !task?.theirs) shown.delete(id)
    else if (task) shown.set(id, { ...task, ...fields, isDeleted, isWaiting: true })
  }
  return [...shown.values()].filter(task => !task.isWaiting || fits(task, filter))
}

const blank = {
  version: 0,
  title: '',
  description: null,
  status: 'pending',
  priority: 0,
  due_at: null,
  list_id: null,
} as const

function fits({ status, title, description, list_id }: Shown, filter: Filter): boolean {
  const text = `${title} ${description ?? ''}`.toLowerCase()
  const words = filter.q.toLowerCase().split(/\s+/)
  const isIn = (wanted: string, value: string | null) => !wanted || value === wanted
  return isIn(filter.status, status) && isIn(filter.list, list_id) && words.every(word => text.includes(word))
}
