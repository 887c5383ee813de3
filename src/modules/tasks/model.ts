import { t } from 'elysia'
import { conflictBody, validationFailedBody } from '../../http/error-responses.ts'
import { pageParameters } from '../../http/paging.ts'
import {
  flag,
  instant,
  integer,
  nullable,
  oneOf,
  ownId,
  pathId,
  text,
  unchecked,
  uuid,
} from '../../http/schema.ts'
import { list } from '../lists/model.ts'
import { examples, fieldsWith, filterSchemas, inputs, outputs, type SortName } from './fields.ts'
import { searchProblem } from './search.ts'

export const task = t.Object(outputs, { title: 'Task', examples: [examples] })

export const taskList = t.Array(task, { examples: [[examples]] })

const inputExamples = Object.fromEntries(Object.entries(examples).filter(([name]) => name in inputs))

export const taskCreate = t.Object(
  { id: t.Optional(ownId()), ...inputs },
  {
    title: 'TaskCreate',
    examples: [{ ...inputExamples, due_at: '2099-01-31T19:00:00+01:00' }],
  },
)

/** What is absent stays as it is; null clears where null is allowed. */
export const taskUpdate = t.Partial(t.Object(inputs), {
  title: 'TaskUpdate',
  examples: [{ status: 'completed' }],
})

/** What a list may be sorted by. */
const sortNames = fieldsWith('sortBy').map(([name]) => name as SortName)

const sortKey = `-?(${sortNames.join('|')})`

const { limit, cursor } = pageParameters

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
      wanted: `a comma list of ${sortNames.join(', ')}, each with - in front for descending`,
      description:
        '`-created_at` by default. A comma list such as `-priority,due_at`, with `-` for descending. Ties are broken by `id`. No date is after all dates.',
    }),
  ),
  total: t.Optional(flag({ description: 'Also count them all: `X-Total-Count`.' })),
  ...filterSchemas,
  q: t.Optional(
    text({
      maxLength: 200,
      problem: searchProblem,
      description:
        'Up to 20 words, or beginnings of words, that all stand in title or description, in any case. In a script without spaces each character is a word.',
    }),
  ),
  overdue: t.Optional(
    flag({
      description: '`true`: only what is due and not completed. `false` is the default.',
    }),
  ),
})

export const trashQuery = t.Object({ limit, cursor })

export const deleteTaskQuery = t.Object({
  permanent: t.Optional(flag({ description: 'For good, not into the trash.' })),
})

const trashedTask = t.Object(
  { ...task.properties, deleted_at: instant({ description: 'Since when it is in the trash.' }) },
  { title: 'TrashedTask' },
)

export const trashedTaskList = t.Array(trashedTask, {
  examples: [[{ ...examples, version: 2, deleted_at: '2026-11-23T06:00:00.000000Z' }]],
})

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
  tasks: [examples],
  deleted: ['019a9c3e-8c20-7d5f-8b62-1e6f3a7b9c22'],
  lists: list.examples,
  deleted_lists: ['019a9c3f-2d40-7e8b-a1c2-6b7c8d9e0f13'],
  cursor: 'q83vEjRWeJCrze8SNFZ4kDcuMA',
  has_more: false,
}

export const changes = t.Object(
  {
    tasks: t.Array(task, { description: 'New and changed, in the order of the changes.' }),
    deleted: t.Array(uuid(), { description: 'No longer in the list: deleted, or in the trash.' }),
    lists: t.Array(list, { description: 'New and changed lists, in the order of the changes.' }),
    deleted_lists: t.Array(uuid(), { description: 'Lists that were deleted.' }),
    cursor: t.String({ description: 'For the next call.', examples: [changesExample.cursor] }),
    has_more: t.Boolean({ description: 'There is more already: ask again at once.' }),
  },
  { title: 'Changes', examples: [changesExample] },
)

const operationId = text({ description: 'Which task.', examples: [examples.id] })
/** The version that a change expects a task to have. */
export const operationVersion = t.Optional(
  integer({
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
    description: 'Only if the task still has this version.',
  }),
)

export const operationNames = ['create', 'update', 'delete'] as const

const create = t.Object(
  { op: t.Literal('create'), id: t.Optional(ownId()), task: taskCreate },
  { title: 'CreateOperation' },
)
const update = t.Object(
  { op: t.Literal('update'), id: operationId, version: operationVersion, task: taskUpdate },
  { title: 'UpdateOperation' },
)
const remove = t.Object(
  { op: t.Literal('delete'), id: operationId, version: operationVersion },
  { title: 'DeleteOperation' },
)

export const operation = t.Union([create, update, remove], { title: 'Operation', discriminator: 'op' })

export const batch = t.Object(
  {
    atomic: t.Optional(
      t.Boolean({ description: '`true`, the default: all operations or none. `false`: each on its own.' }),
    ),
    operations: t.Array(unchecked(operation), { minItems: 1, maxItems: 100 }),
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
          op: t.Optional(oneOf(operationNames)),
          id: t.Optional(t.String({ examples: [examples.id] })),
          status: t.Optional(
            integer({
              description: 'With `atomic: false`: the status of this operation alone.',
              examples: [201],
            }),
          ),
          task: t.Optional(nullable(task)),
          error: t.Optional(t.Union([conflictBody(task), validationFailedBody])),
        },
        { title: 'OperationResult' },
      ),
      {
        description:
          'One for each operation, in their order. `task` is null for a `delete`. With `atomic: false` there may be an `error` instead; `op` and `id` are then those of the operation, if it has them.',
      },
    ),
  },
  {
    title: 'BatchResult',
    examples: [{ results: [{ op: 'create', id: examples.id, task: examples }] }],
  },
)

export const statsQuery = t.Object({
  list: filterSchemas.list,
  tz: t.Optional(
    text({
      maxLength: 64,
      // A name or an offset: Temporal would also take a moment, for its offset or zone.
      pattern: /^([A-Za-z][A-Za-z-][A-Za-z0-9_+/-]*|[+-]\d\d(:?\d\d)?)$/,
      wanted: 'a time zone such as Europe/Berlin',
      description: 'The time zone in which it is today, such as `Europe/Berlin`; `UTC` by default.',
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

export const taskParams = t.Object({ id: pathId('The id of a task.') })

export type TaskCreate = typeof taskCreate.static
export type TaskUpdate = typeof taskUpdate.static
export type Task = typeof task.static
export type TrashedTask = typeof trashedTask.static
export type ListQuery = typeof listQuery.static
export type TrashQuery = typeof trashQuery.static
export type ChangesQuery = typeof changesQuery.static
export type Changes = typeof changes.static
export type Operation = typeof operation.static
export type StatsQuery = typeof statsQuery.static
export type Stats = typeof stats.static
