import { t } from 'elysia'
import {
  instant,
  instantInput,
  integer,
  nullable,
  oneOf,
  pathId,
  stringList,
  text,
  uuid,
} from '../../http/schema.ts'

export const taskStatuses = ['pending', 'in_progress', 'completed'] as const

const title = text({ minLength: 1, maxLength: 200, notBlank: true, examples: ['Buy milk'] })
const description = nullable(text({ maxLength: 2000, examples: ['Two litres, the blue one'] }))
const status = oneOf(taskStatuses, { examples: ['in_progress'] })
const tag = text({
  minLength: 1,
  maxLength: 50,
  notBlank: true,
  pattern: /^\P{Cc}*$/u,
  wanted: 'without control characters',
  examples: ['home'],
})

/** What a person may say about a task beside its title; all of it may be left out. */
const fields = {
  description: t.Optional(description),
  status: t.Optional(status),
  due_at: t.Optional(nullable(instantInput({ description: 'Any offset in, UTC out.' }))),
  priority: t.Optional(
    integer({
      minimum: 0,
      maximum: 4,
      description: '0 none, 1 low, 2 medium, 3 high, 4 urgent',
      examples: [2],
    }),
  ),
  tags: t.Optional(
    t.Array(tag, {
      maxItems: 20,
      description: 'The whole list; a tag that comes twice counts once.',
      examples: [['home', 'errands']],
    }),
  ),
  position: t.Optional(
    text({
      maxLength: 255,
      description: 'Where the task stands in an order of your own; compared byte by byte. `a0` < `a1` < `b`.',
      examples: ['a0'],
    }),
  ),
}

const taskExample = {
  id: '019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11',
  user_id: '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e',
  title: 'Buy milk',
  description: 'Two litres, the blue one',
  status: 'pending',
  priority: 2,
  due_at: '2026-11-24T18:00:00.000000Z',
  tags: ['home', 'errands'],
  position: 'a0',
  completed_at: null,
  created_at: '2026-11-23T05:46:14.120000Z',
  updated_at: '2026-11-23T05:46:14.120000Z',
  version: 1,
}

export const task = t.Object(
  {
    id: uuid(),
    user_id: uuid(),
    title: t.String({ examples: ['Buy milk'] }),
    description: nullable(t.String({ examples: ['Two litres, the blue one'] })),
    status: oneOf(taskStatuses),
    priority: integer({ description: '0 none, 1 low, 2 medium, 3 high, 4 urgent', examples: [2] }),
    due_at: nullable(instant()),
    tags: t.Array(t.String(), { examples: [['home', 'errands']] }),
    position: t.String({ description: 'Where a person put the task: compared as text.', examples: ['a0'] }),
    completed_at: nullable(
      instant({ description: 'When `status` became `completed`; the server keeps it.' }),
    ),
    created_at: instant(),
    updated_at: instant(),
    version: integer({
      description: 'Grows with each change of any of your tasks, so not from 1 for each; also in the `ETag`.',
      examples: [7],
    }),
  },
  { title: 'Task', examples: [taskExample] },
)

export const taskList = t.Array(task, { examples: [[taskExample]] })

export const taskCreate = t.Object(
  { title, ...fields },
  {
    title: 'TaskCreate',
    examples: [
      {
        title: 'Buy milk',
        description: 'Two litres, the blue one',
        status: 'pending',
        due_at: '2026-11-24T19:00:00+01:00',
        priority: 2,
        tags: ['home', 'errands'],
        position: 'a0',
      },
    ],
  },
)

/** What is absent stays as it is; null clears where null is allowed. */
export const taskUpdate = t.Object(
  { title: t.Optional(title), ...fields },
  { title: 'TaskUpdate', examples: [{ status: 'completed' }] },
)

/** What a list may be sorted by. */
export const sortKeys = [
  'created_at',
  'updated_at',
  'due_at',
  'priority',
  'title',
  'status',
  'position',
] as const
export type SortKey = (typeof sortKeys)[number]

const sortKey = `-?(${sortKeys.join('|')})`

const limit = t.Optional(
  t.Integer({ minimum: 1, maximum: 200, description: 'At most this many; 50 if not said.' }),
)
const cursor = t.Optional(
  text({ maxLength: 8000, description: 'Where the page begins: from the `Link` header of the one before.' }),
)
// No examples for what may be left out: the Swagger page would send them.
const moment = (description: string) => t.Optional(text({ format: 'date-time', description }))

export const listQuery = t.Object({
  limit,
  offset: t.Optional(
    t.Integer({ minimum: 0, maximum: 10_000, description: 'Skip this many. Far pages: use `cursor`.' }),
  ),
  cursor,
  sort: t.Optional(
    text({
      maxLength: 200,
      pattern: new RegExp(`^${sortKey}(,${sortKey})*$`),
      wanted: `a comma list of ${sortKeys.join(', ')}, each with - in front for descending`,
      description:
        '`-created_at` if not said. A comma list such as `-priority,due_at`, with `-` for descending. Ties are broken by `id`. No date is after all dates.',
    }),
  ),
  total: t.Optional(t.BooleanString({ description: 'Also count them all: `X-Total-Count`.' })),
  status: t.Optional(
    t.Array(oneOf(taskStatuses), { maxItems: 3, description: 'Only these; may be given more than once.' }),
  ),
  priority: t.Optional(t.Integer({ minimum: 0, maximum: 4 })),
  tag: t.Optional(
    stringList({
      maxItems: 20,
      maxLength: 50,
      description: 'With this tag; given more than once: with any of them.',
    }),
  ),
  q: t.Optional(
    text({
      maxLength: 200,
      description: 'Words, or beginnings of words, that all stand in title or description, in any case.',
    }),
  ),
  due_before: moment('Due earlier than this.'),
  due_after: moment('Due later than this.'),
  created_before: moment('Created earlier than this.'),
  created_after: moment('Created later than this.'),
  updated_after: moment('Changed later than this.'),
  overdue: t.Optional(
    t.BooleanString({
      description: '`true`: only what is due and not completed. `false` is as if not said.',
    }),
  ),
})

/** The parameters of a list that are moments. */
export const moments = [
  'due_before',
  'due_after',
  'created_before',
  'created_after',
  'updated_after',
] as const

export const trashQuery = t.Object({ limit, cursor })

export const trashedTask = t.Object(
  { ...task.properties, deleted_at: instant({ description: 'Since when it is in the trash.' }) },
  {
    title: 'TrashedTask',
    examples: [{ ...taskExample, version: 2, deleted_at: '2026-11-23T06:00:00.000000Z' }],
  },
)

export const trashedTaskList = t.Array(trashedTask)

export const changesQuery = t.Object({
  since: t.Optional(
    text({
      maxLength: 200,
      description: 'The `cursor` of the answer before. Leave it out to begin with everything.',
    }),
  ),
  limit,
})

const changesExample = {
  tasks: [taskExample],
  deleted: ['019a9c3e-8c20-7d5f-8b62-1e6f3a7b9c22'],
  cursor: 'q83vEjRWeJCrze8SNFZ4kDcuMA',
  has_more: false,
}

export const changes = t.Object(
  {
    tasks: t.Array(task, { description: 'New and changed, in the order of the changes.' }),
    deleted: t.Array(uuid(), { description: 'No longer in the list: deleted, or in the trash.' }),
    cursor: t.String({ description: 'For the next call.', examples: [changesExample.cursor] }),
    has_more: t.Boolean({ description: 'There is more already: ask again at once.' }),
  },
  { title: 'Changes', examples: [changesExample] },
)

export const operationKinds = ['create', 'update', 'delete'] as const

export const batch = t.Object(
  {
    operations: t.Array(
      t.Object(
        {
          op: oneOf(operationKinds),
          id: t.Optional(text({ description: 'Which task; not with `create`.', examples: [taskExample.id] })),
          version: t.Optional(
            integer({
              minimum: 0,
              maximum: Number.MAX_SAFE_INTEGER,
              description: 'Only if the task still has this version; not with `create`.',
            }),
          ),
          task: t.Optional(taskUpdate),
        },
        {
          title: 'Operation',
          description:
            '`create` needs a `task` with a title, `update` an `id` and a `task` with what changes, `delete` an `id`.',
        },
      ),
      { minItems: 1, maxItems: 100 },
    ),
  },
  {
    title: 'Batch',
    examples: [
      {
        operations: [
          { op: 'create', task: { title: 'Buy milk' } },
          { op: 'create', task: { title: 'Buy bread', priority: 2 } },
        ],
      },
    ],
  },
)

export const batchResult = t.Object(
  {
    results: t.Array(
      t.Object(
        {
          op: oneOf(operationKinds),
          id: uuid(),
          task: nullable(task),
        },
        { title: 'OperationResult' },
      ),
      { description: 'One for each operation, in their order. `task` is null for a `delete`.' },
    ),
  },
  {
    title: 'BatchResult',
    examples: [{ results: [{ op: 'create', id: taskExample.id, task: taskExample }] }],
  },
)

export const statsQuery = t.Object({
  tz: t.Optional(
    text({
      maxLength: 64,
      description: 'The time zone in which it is today, such as `Europe/Berlin`; `UTC` if not said.',
    }),
  ),
})

const count = (description: string) => integer({ description })

export const stats = t.Object(
  {
    total: count('Everything in the list.'),
    pending: count('With this status.'),
    in_progress: count('With this status.'),
    completed: count('With this status.'),
    overdue: count('Due before now, and not completed.'),
    due_today: count('Due today, and not completed.'),
    trash: count('In the trash.'),
  },
  {
    title: 'Stats',
    examples: [{ total: 6, pending: 3, in_progress: 1, completed: 2, overdue: 1, due_today: 2, trash: 0 }],
  },
)

export const idempotencyHeader = t.Object({
  'idempotency-key': t.Optional(
    text({
      minLength: 1,
      maxLength: 255,
      pattern: /^[\x20-\x7e]*$/,
      wanted: 'printable ASCII',
      description:
        'Any text of your own, such as a UUID. Sent again with the same key, the request makes no second task and gives the first, as it is now.',
    }),
  ),
})

export const taskParams = t.Object({ id: pathId('The id of a task.') })

export type TaskCreate = typeof taskCreate.static
export type TaskUpdate = typeof taskUpdate.static
export type Task = typeof task.static
export type TrashedTask = typeof trashedTask.static
export type ListQuery = typeof listQuery.static
export type TrashQuery = typeof trashQuery.static
export type ChangesQuery = typeof changesQuery.static
export type Changes = typeof changes.static
export type Operation = (typeof batch.static)['operations'][number]
export type OperationResult = (typeof batchResult.static)['results'][number]
export type Stats = typeof stats.static
