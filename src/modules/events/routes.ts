import { Elysia } from 'elysia'
import { errors } from '../../http/error-responses.ts'
import { query } from '../../http/query.ts'
import { requestContext } from '../../http/request-log.ts'
import { bearerToken, requireUser } from '../../http/require-user.ts'
import type { Sessions } from '../auth/sessions.ts'
import type { Tickets } from '../auth/tickets.ts'
import type { TaskService } from '../tasks/service.ts'
import { events, eventsHeader, eventsQuery } from './model.ts'
import type { Streams } from './streams.ts'

interface Parts {
  tasks: TaskService
  streams: Streams
  tickets: Tickets
  sessions: Sessions
}

export const eventRoutes = ({ tasks, streams, tickets, sessions }: Parts) =>
  new Elysia({ prefix: '/tasks', tags: ['tasks'] })
    .use(requestContext)
    // A ticket stands for the header that a browser cannot send. It is used up when the stream begins, not by a request that fails.
    .derive(async ({ headers, query: { ticket } }) => {
      if (headers.authorization !== undefined || typeof ticket !== 'string') return { ticket: undefined }
      headers.authorization = `Bearer ${await tickets.tokenOf(ticket)}`
      return { ticket }
    })
    .use(requireUser(sessions.authenticate, 'tasks:read'))
    .derive(({ headers }) => ({ token: bearerToken(headers.authorization)! }))
    .use(query())
    .get(
      '/events',
      async ({ user, token, ticket, query: { since }, headers, request: { method }, requestId, set }) => {
        const lastEventId = headers['last-event-id']
        const place = await (lastEventId
          ? tasks.changesStart(user.id, lastEventId, ['header', 'last-event-id'])
          : tasks.changesStart(user.id, since))
        Object.assign(set.headers, {
          'content-type': 'text/event-stream',
          // Proxies in Node.js (Next.js, webpack) would compress it, and hold events back until a buffer is full.
          'cache-control': 'no-store, no-transform',
          'x-accel-buffering': 'no',
        })
        if (method === 'HEAD') return new Response()
        if (ticket !== undefined) {
          streams.requireRoom(user.id)
          await tickets.use(ticket)
        }
        return new Response(streams.open({ userId: user.id, token, place, requestId }))
      },
      {
        query: eventsQuery,
        headers: eventsHeader,
        response: { 200: events, ...errors('cursor_expired', 'too_many_requests') },
        detail: {
          operationId: 'streamChanges',
          summary: 'Receive changes as they happen',
          description:
            'A stream of server-sent events: `hello` with the place where it begins, then `changes` with what `/tasks/changes` returns, at most 200 entries each. The `id` of an event is its cursor: with it as `Last-Event-ID` or `since`, the next stream misses nothing and repeats nothing. `end` says why the service ends it: `restarting` and `too_slow` (connect again), `invalid_token` (sign in again). After a 410, or a 422 for the cursor, throw the copy away and begin again. At most 10 streams a user. The answer does not end: `curl -N` shows it, the Swagger page does not.',
        },
      },
    )
