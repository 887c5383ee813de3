import { type Static, type TObject, Type } from '@sinclair/typebox'
import type { Page } from '../../db/page.ts'
import { idempotencyHeader } from '../../http/idempotency-key.ts'
import { nullable } from '../../http/schema.ts'
import type { UserId } from '../../lib/user-id.ts'
import { list, listsQuery } from '../lists/model.ts'
import type { ListService } from '../lists/service.ts'
import {
  listQuery,
  operationVersion,
  stats,
  statsQuery,
  task,
  taskCreate,
  taskUpdate,
} from '../tasks/model.ts'
import { ifVersion } from '../tasks/owned.ts'
import type { TaskService } from '../tasks/service.ts'
import { asArguments } from './tool-schema.ts'

/** What the tools call. */
export interface Services {
  tasks: TaskService
  lists: ListService
}

/** What a call returns, as JSON. */
export interface ToolAnswer {
  json: string
  /** For an assistant that reads text, if that is to be shorter. */
  text?: string
}

/** An operation that an assistant can ask for. */
export interface Tool {
  description: string
  arguments: TObject
  result: TObject
  effect: keyof typeof effects
  run(user: UserId, input: never): Promise<ToolAnswer>
}

/** The hints of the protocol. `destroys`: a client should ask the user first, because a text or a task disappears. */
export const effects = {
  none: { readOnlyHint: true },
  adds: { readOnlyHint: false, destructiveHint: false, idempotentHint: false },
  changes: { readOnlyHint: false, destructiveHint: false, idempotentHint: true },
  destroys: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
}

/** At most this many tasks are shown in a text. */
const textTasksMax = 25

/** A tool whose arguments have the type that its schema describes. */
const tool = <Arguments extends TObject>(
  definition: Omit<Tool, 'arguments' | 'run'> & {
    arguments: Arguments
    run(user: UserId, input: Static<Arguments>): Promise<ToolAnswer>
  },
): Tool => definition

const id = Type.String()
const version = operationVersion
const cursor = nullable(Type.String())

/** Pages are read by `cursor` alone, and there is no header for a total. */
const notForAssistants = ['offset', 'total'] as const

const oneTaskAsExpected = Type.Object({ id, version })
/** What the next call needs of a task. Its other fields come along, as the API returns them. */
const taskResult = Type.Object({ id, version: task.properties.version })

/** Every tool by its name. What it does, the service of the tasks does. */
export function createTools({ tasks, lists }: Services): ReadonlyMap<string, Tool> {
  const tools = {
    find_tasks: tool({
      description:
        'Find tasks, newest first, 25 a page. cursor: with the same filters. q: words in title or description. list, parent: ids, or none. sort: e.g. -priority,due_at (- descending). Times: RFC 3339 with offset. priority: 0 none to 4 urgent.',
      arguments: asArguments(Type.Omit(listQuery, notForAssistants)),
      result: Type.Object({ tasks: Type.Array(taskResult), cursor }),
      effect: 'none',
      async run(user, input) {
        const { limit = textTasksMax } = input
        const page = await tasks.list(user, { ...input, limit })
        // The text of a longer page continues where it breaks off.
        const shown = limit > textTasksMax ? await tasks.list(user, { ...input, limit: textTasksMax }) : page
        return { json: pageJson('tasks', page), text: pageJson('tasks', shown) }
      },
    }),
    get_task: tool({
      description: 'One task.',
      arguments: Type.Object({ id }),
      result: taskResult,
      effect: 'none',
      run: (user, { id }) => tasks.read(user, id),
    }),
    list_lists: tool({
      description: 'The lists of tasks; a task without one is in the inbox. counts: with numbers of tasks.',
      arguments: asArguments(Type.Omit(listsQuery, notForAssistants)),
      result: Type.Object({ lists: Type.Array(Type.Object({ id, name: list.properties.name })), cursor }),
      effect: 'none',
      run: async (user, input) => ({ json: pageJson('lists', await lists.list(user, input)) }),
    }),
    task_stats: tool({
      description: 'How many tasks there are by status, overdue, due today. tz: e.g. Europe/Berlin.',
      arguments: asArguments(statsQuery),
      result: Type.Object(stats.properties),
      effect: 'none',
      run: async (user, input) => ({ json: JSON.stringify(await tasks.stats(user, input)) }),
    }),
    add_tasks: tool({
      description: 'Add 1 to 50 tasks. key: any text; a call repeated with it adds nothing twice.',
      arguments: Type.Object({
        // In place of ids of their own, assistants send a key.
        tasks: Type.Array(asArguments(Type.Omit(taskCreate, ['id'])), { minItems: 1, maxItems: 50 }),
        key: idempotencyHeader.properties['idempotency-key'],
      }),
      result: Type.Object({ tasks: Type.Array(taskResult) }),
      effect: 'adds',
      async run(user, { tasks: sent, key }) {
        const creates = sent.map(task => ({ op: 'create', task }))
        const outcomes = await tasks.batch(user, creates, { key })
        const made = outcomes.flatMap(outcome => ('json' in outcome ? (outcome.json ?? []) : []))
        const rest = made.length - textTasksMax
        const text = rest > 0 && `{"tasks":[${made.slice(0, textTasksMax)}],"not_shown":${rest}}`
        return { json: `{"tasks":[${made}]}`, ...(text && { text }) }
      },
    }),
    update_task: tool({
      description: 'Change the given fields of a task; null clears. version: only if it still has this one.',
      arguments: Type.Object({ id, version, ...taskUpdate.properties }),
      result: taskResult,
      effect: 'destroys',
      run: (user, { id, version, ...task }) => tasks.update(user, id, task, ifVersion(version)),
    }),
    complete_task: tool({
      description: 'Set the status to completed.',
      arguments: oneTaskAsExpected,
      result: taskResult,
      effect: 'changes',
      run: (user, { id, version }) => tasks.update(user, id, { status: 'completed' }, ifVersion(version)),
    }),
    delete_task: tool({
      description: 'Move a task and its children to the trash; restore_task brings them back for 30 days.',
      arguments: oneTaskAsExpected,
      result: Type.Object({ deleted: Type.Array(id) }),
      effect: 'destroys',
      async run(user, { id, version }) {
        const removed = await tasks.remove(user, id, false, ifVersion(version))
        return { json: JSON.stringify({ deleted: removed.map(({ id }) => id) }) }
      },
    }),
    restore_task: tool({
      description: 'Bring a task back from the trash.',
      arguments: oneTaskAsExpected,
      result: taskResult,
      effect: 'changes',
      run: (user, { id, version }) => tasks.restore(user, id, ifVersion(version)),
    }),
  }
  return new Map(Object.entries(tools))
}

const pageJson = (name: 'tasks' | 'lists', { items, next }: Page) =>
  `{"${name}":[${items}],"cursor":${JSON.stringify(next ?? null)}}`
