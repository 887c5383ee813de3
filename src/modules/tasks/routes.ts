import { Elysia, t } from 'elysia'
import { body } from '../../http/body.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { errors, signedIn, withHeaders } from '../../http/schema.ts'
import type { Caller } from '../auth/service.ts'
import { listQuery, task, taskCreate, taskList, taskParams, taskUpdate } from './model.ts'
import type { TaskService } from './service.ts'

export const taskRoutes = (tasks: TaskService, authenticate: Authenticate<Caller>) =>
  new Elysia({ prefix: '/tasks', tags: ['tasks'], detail: signedIn })
    .use(requireUser(authenticate))
    .use(body())
    .get('', ({ user, query }) => tasks.list(user.id, query), {
      query: listQuery,
      response: { 200: taskList, ...errors('user', 'query') },
      detail: { operationId: 'listTasks', summary: 'List your tasks', description: 'Newest first.' },
    })
    .post(
      '',
      async ({ user, body, status, set, path }) => {
        const task = await tasks.create(user.id, body)
        set.headers.etag = `"${task.version}"`
        set.headers.location = `${path.replace(/\/$/, '')}/${task.id}`
        return status(201, task)
      },
      {
        body: taskCreate,
        response: { 201: withHeaders(task, 'ETag', 'Location'), ...errors('user', 'body') },
        detail: { operationId: 'createTask', summary: 'Create a task' },
      },
    )
    .get(
      '/:id',
      async ({ user, params, set }) => {
        const task = await tasks.read(user.id, params.id)
        set.headers.etag = `"${task.version}"`
        return task
      },
      {
        params: taskParams,
        response: { 200: withHeaders(task, 'ETag'), ...errors('user', 'not_authorized', 'task_not_found') },
        detail: { operationId: 'readTask', summary: 'Show a task' },
      },
    )
    .put('/:id', ({ user, params, body }) => tasks.update(user.id, params.id, body), {
      params: taskParams,
      body: taskUpdate,
      response: { 200: task, ...errors('user', 'not_authorized', 'task_not_found', 'body') },
      detail: { operationId: 'replaceTask', summary: 'Change a task', description: 'The same as `PATCH`.' },
    })
    .patch('/:id', ({ user, params, body }) => tasks.update(user.id, params.id, body), {
      params: taskParams,
      body: taskUpdate,
      response: { 200: task, ...errors('user', 'not_authorized', 'task_not_found', 'body') },
      detail: {
        operationId: 'updateTask',
        summary: 'Change a task',
        description: 'Changes only the fields that are sent; `null` clears where null is allowed.',
      },
    })
    .delete(
      '/:id',
      async ({ user, params, query, status }) => {
        await tasks.remove(user.id, params.id, query.permanent ?? false)
        return status(204, undefined)
      },
      {
        params: taskParams,
        query: t.Object({
          permanent: t.Optional(t.BooleanString({ description: 'For good, not into the trash.' })),
        }),
        response: { 204: t.Void(), ...errors('user', 'not_authorized', 'task_not_found', 'query') },
        detail: {
          operationId: 'deleteTask',
          summary: 'Delete a task',
          description: 'Puts it into the trash.',
        },
      },
    )
