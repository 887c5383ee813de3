import { t } from 'elysia'
import { instant, nullable, oneOf, text, uuid } from '../../http/schema.ts'

export const taskStatuses = ['pending', 'in_progress', 'completed'] as const

const title = text({ minLength: 1, maxLength: 200, notBlank: true, examples: ['Buy milk'] })
const description = nullable(text({ maxLength: 2000, examples: ['Two litres, the blue one'] }))
const status = oneOf(taskStatuses, { examples: ['in_progress'] })

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
    priority: t.Integer({ description: '0 none, 1 low, 2 medium, 3 high, 4 urgent', examples: [2] }),
    due_at: nullable(instant()),
    tags: t.Array(t.String(), { examples: [['home', 'errands']] }),
    position: t.String({ description: 'Where a person put the task: compared as text.', examples: ['a0'] }),
    completed_at: nullable(
      instant({ description: 'When `status` became `completed`; the server keeps it.' }),
    ),
    created_at: instant(),
    updated_at: instant(),
    version: t.Integer({ description: 'Grows with each change; also in the `ETag`.', examples: [7] }),
  },
  { title: 'Task', examples: [taskExample] },
)

export const taskList = t.Array(task, { examples: [[taskExample]] })

export const taskCreate = t.Object(
  {
    title,
    description: t.Optional(description),
    status: t.Optional(status),
  },
  {
    title: 'TaskCreate',
    examples: [{ title: 'Buy milk', description: 'Two litres, the blue one', status: 'pending' }],
  },
)

/** What is absent stays as it is; null clears where null is allowed. */
export const taskUpdate = t.Object(
  {
    title: t.Optional(title),
    description: t.Optional(description),
    status: t.Optional(status),
  },
  { title: 'TaskUpdate', examples: [{ status: 'completed' }] },
)

export const listQuery = t.Object({
  limit: t.Optional(
    t.Integer({ minimum: 1, maximum: 200, description: 'At most this many tasks; 50 if not said.' }),
  ),
  offset: t.Optional(t.Integer({ minimum: 0, maximum: 10_000, description: 'Skip this many.' })),
  status: t.Optional(
    t.Array(oneOf(taskStatuses), { maxItems: 3, description: 'Only these; may be given more than once.' }),
  ),
})

export const taskParams = t.Object({ id: t.String({ description: 'The id of a task.' }) })

export type TaskCreate = typeof taskCreate.static
export type TaskUpdate = typeof taskUpdate.static
export type Task = typeof task.static
export type ListQuery = typeof listQuery.static
