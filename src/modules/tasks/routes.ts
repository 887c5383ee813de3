import { Elysia, t } from 'elysia'
import { body } from '../../http/body.ts'
import {
  entityTag,
  ifMatchHeader,
  ifNoneMatchHeader,
  isKnown,
  wantedVersions,
} from '../../http/entity-tag.ts'
import { pageHeaders } from '../../http/paging.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { errors, jsonText, noContent, queryValues, signedIn, withHeaders } from '../../http/schema.ts'
import type { Caller } from '../auth/service.ts'
import {
  batch,
  batchResult,
  changes,
  changesQuery,
  idempotencyHeader,
  listQuery,
  moments,
  stats,
  statsQuery,
  type TaskUpdate,
  task,
  taskCreate,
  taskList,
  taskParams,
  taskUpdate,
  trashedTaskList,
  trashQuery,
} from './model.ts'
import type { SerializedTask } from './rows.ts'
import type { TaskService } from './service.ts'

const batchBytesMax = 1024 * 1024

export const taskRoutes = (tasks: TaskService, authenticate: Authenticate<Caller>) =>
  new Elysia().use(batchRoutes(tasks, authenticate)).use(otherRoutes(tasks, authenticate))

/** By itself, because it takes a larger body. */
const batchRoutes = (tasks: TaskService, authenticate: Authenticate<Caller>) =>
  new Elysia({ prefix: '/tasks', tags: ['tasks'], detail: signedIn })
    .use(requireUser(authenticate))
    .use(body({ bytesMax: batchBytesMax }))
    .post('/batch', async ({ user, body, set }) => json(set, await tasks.batch(user.id, body.operations)), {
      body: batch,
      response: {
        200: jsonText(batchResult),
        ...errors('user', 'not_authorized', 'task_not_found', 'precondition_failed', 'body'),
      },
      detail: {
        operationId: 'batchTasks',
        summary: 'Create, change and delete many tasks at once',
        description:
          'Up to 100 operations, all or nothing. An error names the first operation that cannot be done in `index`. A `delete` puts into the trash.',
      },
    })

const otherRoutes = (tasks: TaskService, authenticate: Authenticate<Caller>) => {
  async function update({ user, params, body, headers, set }: Update) {
    const task = await tasks.update(user.id, params.id, body, wantedVersions(headers['if-match']))
    return answer(set, task)
  }

  return new Elysia({ prefix: '/tasks', tags: ['tasks'], detail: signedIn })
    .use(requireUser(authenticate))
    .use(body())
    .get(
      '',
      async ({ user, query, request, set }) => {
        const page = await tasks.list(user.id, query)
        Object.assign(set.headers, pageHeaders(request, page))
        return json(set, `[${page.items}]`)
      },
      {
        transform: readListQuery,
        query: listQuery,
        response: {
          200: withHeaders(jsonText(taskList), 'Link', 'X-Total-Count'),
          ...errors('user', 'query'),
        },
        detail: {
          operationId: 'listTasks',
          summary: 'List your tasks',
          description:
            'Newest first, if not said otherwise. Filters can be combined. The `Link` header has the address of the next page; on the last page there is none.',
        },
      },
    )
    .post(
      '',
      async ({ user, body, headers, status, set, path }) => {
        const task = await tasks.create(user.id, body, headers['idempotency-key'])
        set.headers.location = `${path.replace(/\/$/, '')}/${task.id}`
        return status(201, answer(set, task))
      },
      {
        headers: idempotencyHeader,
        body: taskCreate,
        response: {
          201: withHeaders(jsonText(task), 'ETag', 'Location'),
          ...errors('user', 'idempotency_key_used', 'body'),
        },
        detail: {
          operationId: 'createTask',
          summary: 'Create a task',
          description: 'With an `Idempotency-Key` it can be sent again without making a second task.',
        },
      },
    )
    .get('/changes', async ({ user, query, set }) => json(set, await tasks.changes(user.id, query)), {
      query: changesQuery,
      response: { 200: jsonText(changes), ...errors('user', 'cursor_expired', 'query') },
      detail: {
        operationId: 'listChanges',
        summary: 'What has changed since',
        description:
          'Keeps a copy up to date: every change of your tasks in order, none missed, deletions included. Begin without `since`, keep the `cursor`, and ask with it again, at once while `has_more` is true. After a 410, or a 422 for `since`, throw the copy away and begin again. Deletions are remembered for 90 days.',
      },
    })
    .get('/stats', ({ user, query }) => tasks.stats(user.id, query.tz), {
      query: statsQuery,
      response: { 200: stats, ...errors('user', 'query') },
      detail: { operationId: 'taskStats', summary: 'Count your tasks' },
    })
    .get(
      '/trash',
      async ({ user, query, request, set }) => {
        const page = await tasks.trash(user.id, query)
        Object.assign(set.headers, pageHeaders(request, page))
        return json(set, `[${page.items}]`)
      },
      {
        query: trashQuery,
        response: { 200: withHeaders(jsonText(trashedTaskList), 'Link'), ...errors('user', 'query') },
        detail: {
          operationId: 'listTrash',
          summary: 'List the trash',
          description: 'What was deleted last comes first. After 30 days a task goes for good.',
        },
      },
    )
    .delete(
      '/trash',
      async ({ user, status }) => {
        await tasks.emptyTrash(user.id)
        return status(204, undefined)
      },
      {
        response: { 204: noContent, ...errors('user') },
        detail: {
          operationId: 'emptyTrash',
          summary: 'Empty the trash',
          description: 'Everything in it goes for good.',
        },
      },
    )
    .get(
      '/:id',
      async ({ user, params, headers, set, status }) => {
        const task = await tasks.read(user.id, params.id)
        set.headers['cache-control'] = 'private, no-cache'
        if (!isKnown(headers['if-none-match'], task.version)) return answer(set, task)
        // Without a body there is no type of one.
        set.headers.etag = entityTag(task.version)
        return status(304, undefined)
      },
      {
        params: taskParams,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(task), 'ETag'),
          304: withHeaders(noContent, 'ETag'),
          ...errors('user', 'not_authorized', 'task_not_found', 'query'),
        },
        detail: { operationId: 'readTask', summary: 'Show a task' },
      },
    )
    .put('/:id', update, {
      ...change,
      body: taskUpdate,
      detail: { operationId: 'replaceTask', summary: 'Change a task', description: 'The same as `PATCH`.' },
    })
    .patch('/:id', update, {
      ...change,
      body: taskUpdate,
      detail: {
        operationId: 'updateTask',
        summary: 'Change a task',
        description:
          'Changes only the fields that are sent; `null` clears where null is allowed. With `If-Match`, only if nobody has changed the task since you read it.',
      },
    })
    .delete(
      '/:id',
      async ({ user, params, query, headers, status }) => {
        const ifMatch = wantedVersions(headers['if-match'])
        await tasks.remove(user.id, params.id, query.permanent ?? false, ifMatch)
        return status(204, undefined)
      },
      {
        params: taskParams,
        query: t.Object({
          permanent: t.Optional(t.BooleanString({ description: 'For good, not into the trash.' })),
        }),
        headers: ifMatchHeader,
        response: {
          204: noContent,
          ...errors('user', 'not_authorized', 'task_not_found', 'precondition_failed', 'query'),
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
      async ({ user, params, headers, set }) => {
        const task = await tasks.restore(user.id, params.id, wantedVersions(headers['if-match']))
        return answer(set, task)
      },
      {
        ...change,
        detail: {
          operationId: 'restoreTask',
          summary: 'Bring a task back from the trash',
          description: 'A task that is not in the trash stays as it is.',
        },
      },
    )
}

/** Answers with text that is JSON already. */
function json(set: { headers: Headers }, text: string): string {
  set.headers['content-type'] = 'application/json'
  return text
}

/** Answers with a task; its version is the tag of its state. */
function answer(set: { headers: Headers }, { version, json: text }: SerializedTask): string {
  set.headers.etag = entityTag(version)
  return json(set, text)
}

type Headers = { etag?: string | number; 'content-type'?: string | number }

interface Update {
  user: Caller
  params: { id: string }
  body: TaskUpdate
  headers: { 'if-match'?: string }
  set: { headers: Headers }
}

/** What the routes that change one task have in common. */
const change = {
  params: taskParams,
  headers: ifMatchHeader,
  response: {
    200: withHeaders(jsonText(task), 'ETag'),
    ...errors('user', 'not_authorized', 'task_not_found', 'precondition_failed', 'body'),
  },
}

/** Before a list's query is checked: tags as they were sent, and moments whose `+` arrived as a space. */
function readListQuery({ query, request }: { query: Record<string, unknown>; request: Request }) {
  if (query.tag !== undefined) query.tag = queryValues(request, 'tag')
  for (const name of moments) {
    const moment = query[name]
    if (typeof moment === 'string') query[name] = moment.replace(/ (?=\d\d:\d\d$)/, '+')
  }
}
