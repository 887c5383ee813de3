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
import { query } from '../../http/query.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { jsonText, noContent, sendJson, withHeaders } from '../../http/schema.ts'
import {
  deleteListQuery,
  type List,
  list,
  listCreate,
  listParams,
  listsPage,
  listsQuery,
  listUpdate,
  readListQuery,
} from './model.ts'
import type { ListService } from './service.ts'

export const listRoutes = (lists: ListService, authenticate: Authenticate, answerTags: AnswerTags) =>
  new Elysia({ prefix: '/lists', tags: ['lists'] })
    .use(requireUser(authenticate, { read: 'tasks:read', write: 'tasks:write' }))
    .use(query())
    .get(
      '',
      async ({ user, query, headers, request, set }) => {
        const tagOf = answerTags(user.id, request)
        const readVersion = () => lists.listVersion(user.id, query)
        const known = await notModified(set, headers['if-none-match'], tagOf, readVersion)
        if (known) return known
        const page = await lists.list(user.id, query)
        if (page.version !== undefined) setAnswerTag(set, tagOf(page.version))
        return sendPage<List[]>(set, request, page)
      },
      {
        query: listsQuery,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(listsPage), 'ETag', 'Link', 'X-Total-Count'),
          304: withHeaders(noContent, 'ETag'),
        },
        detail: {
          operationId: 'listLists',
          summary: 'List your lists',
          description:
            'By `position`, then `id`. The `Link` header has the address of the next page. With `If-None-Match`, 304 while none of your tasks and lists has changed.',
        },
      },
    )
    .get(
      '/:id',
      async ({ user, params, query, headers, set }) => {
        const list = await lists.read(user.id, params.id, query.counts)
        // The counts change without the list: so its version cannot be their ETag.
        if (query.counts) return sendJson<List>(set, list.json)
        return sendUnlessKnown<List>(set, headers['if-none-match'], list)
      },
      {
        params: listParams,
        query: readListQuery,
        headers: ifNoneMatchHeader,
        response: {
          200: withHeaders(jsonText(list), 'ETag'),
          304: withHeaders(noContent, 'ETag'),
          ...errors('not_authorized', 'list_not_found'),
        },
        detail: {
          operationId: 'readList',
          summary: 'Show a list',
          description: 'With `If-None-Match`, 304 while the list has not changed.',
        },
      },
    )
    .delete(
      '/:id',
      async ({ user, params, query, headers, status }) =>
        status(204, await lists.remove(user.id, params.id, query.tasks ?? 'keep', preconditionOf(headers))),
      {
        params: listParams,
        query: deleteListQuery,
        headers: preconditionHeaders,
        response: {
          204: noContent,
          ...errors('not_authorized', 'list_not_found', 'list_changed'),
          ...conflict(list),
        },
        detail: {
          operationId: 'deleteList',
          summary: 'Delete a list',
          description: 'For good. Its tasks go to the inbox or, with `tasks=trash`, to the trash.',
        },
      },
    )
    .use(body())
    .post(
      '',
      async ({ user, body, headers, set, path }) =>
        sendCreated<List>(set, path, await lists.create(user.id, body, headers['idempotency-key'])),
      {
        headers: idempotencyHeader,
        body: listCreate,
        response: {
          201: withHeaders(jsonText(list), 'ETag', 'Location'),
          ...errors('id_used', 'idempotency_key_used', 'too_many_lists', 'idempotency_key_reused'),
        },
        detail: {
          operationId: 'createList',
          summary: 'Create a list',
          description:
            'With an `Idempotency-Key`, or an `id` of your own, it can be sent again without making a second list. At most 500.',
        },
      },
    )
    .patch(
      '/:id',
      async ({ user, params, body, headers, set }) =>
        sendTagged<List>(set, await lists.update(user.id, params.id, body, preconditionOf(headers))),
      {
        params: listParams,
        headers: preconditionHeaders,
        body: listUpdate,
        response: {
          200: withHeaders(jsonText(list), 'ETag'),
          ...errors('not_authorized', 'list_not_found', 'list_changed'),
          ...conflict(list),
        },
        detail: {
          operationId: 'updateList',
          summary: 'Change a list',
          description:
            'Changes only the fields that are sent. With `If-Match`, only if it has not changed since.',
        },
      },
    )
