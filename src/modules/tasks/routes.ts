import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import {
  type AnswerTags,
  ifNoneMatchHeader,
  notModified,
  preconditionHeaders,
  preconditionOf,
  sendCreated,
  sendTagged,
  sendUnlessKnown,
  setAnswerTag,
} from '../../http/entity-tag.ts'
import { conflict, errors } from '../../http/error-responses.ts'
import { idempotencyHeader } from '../../http/idempotency-key.ts'
import { sendPage } from '../../http/paging.ts'
import { query, queryValues } from '../../http/query.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { jsonText, noContent, sendJson, withHeaders } from '../../http/schema.ts'
import { batchRoutes } from './batch-routes.ts'
import { listFilters, momentFilters } from './fields.ts'
import {
  type Changes,
  changes,
  changesQuery,
  deleteTaskQuery,
  listQuery,
  stats,
  statsQuery,
  type Task,
  type TrashedTask,
  task,
  taskCreate,
  taskList,
  taskParams,
  taskUpdate,
  trashedTaskList,
  trashQuery,
} from './model.ts'
import { misplacedCodes } from './placement.ts'
import type { TaskService } from './service.ts'

export const taskRoutes = (tasks: TaskService, authenticate: Authenticate, answerTags: AnswerTags) =>
  new Elysia({ prefix: '/tasks', tags: ['tasks'] })
    .use(batchRoutes(tasks, authenticate))
    .use(requireUser(authenticate, { read: 'tasks:read', write: 'tasks:write' }))
    .use(query())
    .get(
      '',
      async ({ user, query, headers, request, set }) => {
        const tagOf = answerTags(user.id, request)
        const readVersion = () => tasks.listVersion(user.id, query)
        const known = await notModified(set, headers['if-none-match'], tagOf, readVersion)
        if (known) return known
        const page = await tasks.list(user.id, query)
        if (page.version !== undefined) setAnswerTag(set, tagOf(page.version))
        return sendPage<Task[]>(set, request, page)
      },
      {
        transform: normalizeQuery,
        query: listQuery,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(taskList), 'ETag', 'Link', 'X-Total-Count'),
          304: withHeaders(noContent, 'ETag'),
        },
        detail: {
          operationId: 'listTasks',
          summary: 'List your tasks',
          description:
            'Newest first by default. Filters can be combined. The `Link` header has the address of the next page; on the last page there is none. With `If-None-Match`, 304 while none of your tasks and lists has changed; `overdue=true` has no `ETag`, because time decides about it.',
        },
      },
    )
    .get(
      '/changes',
      async ({ user, query, headers, request, set }) => {
        const tagOf = answerTags(user.id, request)
        const readState = () => tasks.changesState(user.id, query)
        const known = await notModified(set, headers['if-none-match'], tagOf, readState)
        if (known) return known
        const { json, state } = await tasks.changes(user.id, query)
        setAnswerTag(set, tagOf(state))
        return sendJson<Changes>(set, json)
      },
      {
        query: changesQuery,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(changes), 'ETag'),
          304: withHeaders(noContent, 'ETag'),
          ...errors('cursor_expired'),
        },
        detail: {
          operationId: 'listChanges',
          summary: 'What has changed since',
          description:
            'Keeps a copy up to date: every change of your tasks and lists in order, none missed, deletions included. Begin without `since`, keep the `cursor`, and ask with it again, at once while `has_more` is true. After a 410, or a 422 for `since`, throw the copy away and begin again. Deletions are remembered for 90 days. With `If-None-Match`, 304 while nothing has changed.',
        },
      },
    )
    .get('/stats', ({ user, query }) => tasks.stats(user.id, query), {
      transform: normalizeQuery,
      query: statsQuery,
      response: { 200: stats },
      detail: {
        operationId: 'countTasks',
        summary: 'Count your tasks',
        description: 'By status, and how many are due or in the trash; with `list`, only those in it.',
      },
    })
    .get(
      '/trash',
      async ({ user, query, request, set }) =>
        sendPage<TrashedTask[]>(set, request, await tasks.trash(user.id, query)),
      {
        query: trashQuery,
        response: { 200: withHeaders(jsonText(trashedTaskList), 'Link') },
        detail: {
          operationId: 'listTrash',
          summary: 'List the trash',
          description: 'What was deleted last comes first. After 30 days a task goes for good.',
        },
      },
    )
    .delete('/trash', async ({ user, status }) => status(204, await tasks.emptyTrash(user.id)), {
      response: { 204: noContent },
      detail: {
        operationId: 'emptyTrash',
        summary: 'Empty the trash',
        description: 'Everything in it goes for good.',
      },
    })
    .get(
      '/:id',
      async ({ user, params, headers, set }) =>
        sendUnlessKnown<Task>(set, headers['if-none-match'], await tasks.read(user.id, params.id)),
      {
        params: taskParams,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(task), 'ETag'),
          304: withHeaders(noContent, 'ETag'),
          ...errors('not_authorized', 'task_not_found'),
        },
        detail: {
          operationId: 'readTask',
          summary: 'Show a task',
          description: 'With `If-None-Match`, 304 while the task has not changed.',
        },
      },
    )
    .delete(
      '/:id',
      async ({ user, params, query, headers, status }) => {
        await tasks.remove(user.id, params.id, query.permanent ?? false, preconditionOf(headers))
        return status(204, undefined)
      },
      {
        params: taskParams,
        query: deleteTaskQuery,
        headers: preconditionHeaders,
        response: {
          204: noContent,
          ...errors('not_authorized', 'task_not_found', 'precondition_failed'),
          ...conflict(task),
        },
        detail: {
          operationId: 'deleteTask',
          summary: 'Delete a task',
          description: 'Puts it into the trash; with `permanent` it goes for good, also from there.',
        },
      },
    )
    .post(
      '/:id/restore',
      async ({ user, params, headers, set }) =>
        sendTagged<Task>(set, await tasks.restore(user.id, params.id, preconditionOf(headers))),
      {
        ...change('too_many_children'),
        detail: {
          operationId: 'restoreTask',
          summary: 'Bring a task back from the trash',
          description: 'A task that is not in the trash stays as it is.',
        },
      },
    )
    .use(body())
    .post(
      '',
      async ({ user, body, headers, set, path }) =>
        sendCreated<Task>(set, path, await tasks.create(user.id, body, headers['idempotency-key'])),
      {
        headers: idempotencyHeader,
        body: taskCreate,
        response: {
          201: withHeaders(jsonText(task), 'ETag', 'Location'),
          ...errors('id_used', 'idempotency_key_used', 'idempotency_key_reused', ...misplacedCodes),
        },
        detail: {
          operationId: 'createTask',
          summary: 'Create a task',
          description:
            'With an `Idempotency-Key`, or an `id` of your own, it can be sent again without making a second task: the answer is the first one, as it is now. If that is in the trash or gone for good, 409; a key that comes again with another body, 422.',
        },
      },
    )
    .put(
      '/:id',
      async ({ user, params, body, headers, set }) =>
        sendTagged<Task>(set, await tasks.update(user.id, params.id, body, preconditionOf(headers))),
      {
        ...change(...misplacedCodes),
        body: taskUpdate,
        detail: {
          operationId: 'updateTaskWithPut',
          summary: 'Change a task',
          description: 'The same as `PATCH`.',
        },
      },
    )
    .patch(
      '/:id',
      async ({ user, params, body, headers, set }) =>
        sendTagged<Task>(set, await tasks.update(user.id, params.id, body, preconditionOf(headers))),
      {
        ...change(...misplacedCodes),
        body: taskUpdate,
        detail: {
          operationId: 'updateTask',
          summary: 'Change a task',
          description:
            'Changes only the fields that are sent; `null` clears where null is allowed. With `If-Match`, only if the task has not changed since you read it.',
        },
      },
    )

/** What the routes that change one task have in common; `misplaced` are the 422 that may come from its list or parent. */
const change = (...misplaced: typeof misplacedCodes) => ({
  params: taskParams,
  headers: preconditionHeaders,
  response: {
    200: withHeaders(jsonText(task), 'ETag'),
    ...errors('not_authorized', 'task_not_found', 'precondition_failed', ...misplaced),
    ...conflict(task),
  },
})

/** Before a list's query is checked: lists of texts as they were sent, and moments whose `+` arrived as a space. */
function normalizeQuery({ query, request }: { query: Record<string, unknown>; request: Request }) {
  for (const { name } of listFilters) if (query[name] !== undefined) query[name] = queryValues(request, name)
  for (const { name } of momentFilters) {
    const moment = query[name]
    if (typeof moment === 'string') query[name] = moment.replace(' ', '+')
  }
}
