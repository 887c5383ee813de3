import { Elysia } from 'elysia'
import type { Log } from '../log.ts'

/** Gives every request an id, and writes its access line when it has been answered. */
export const requestLog = (log: Log) =>
  new Elysia({ name: 'request-log' })
    .decorate({ requestId: '', startedAt: 0 })
    .onRequest(context => {
      const given = context.request.headers.get('x-request-id')
      context.requestId = given && isSane(given) ? given : Bun.randomUUIDv7()
      context.startedAt = performance.now()
      context.set.headers['x-request-id'] = context.requestId
    })
    .onAfterResponse({ as: 'global' }, context => {
      const { requestId, startedAt, request, route, set, responseValue } = context
      log.info('request', {
        request_id: requestId,
        method: request.method,
        // The pattern, never the path: a path may hold what a person typed.
        route: route ?? 'unknown',
        status: responseValue instanceof Response ? responseValue.status : (set.status ?? 200),
        ms: Math.round((performance.now() - startedAt) * 1000) / 1000,
        user_id: (context as { user?: { id: string } }).user?.id,
      })
    })

/** An id from outside is taken over when it cannot do harm in a log. */
const isSane = (id: string) => id.length <= 128 && /^[\w.:-]+$/.test(id)
