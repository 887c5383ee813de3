import { Elysia } from 'elysia'
import type { Fields, Log } from '../telemetry/log.ts'
import type { Observer } from '../telemetry/observer.ts'

/** Gives every request an id, and writes its access line when it has been answered. */
export const requestLog = (log: Log, observers: readonly Observer[] = []) =>
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
      const { method } = request
      const status = responseValue instanceof Response ? responseValue.status : Number(set.status ?? 200)
      const milliseconds = performance.now() - startedAt
      const fields: Fields = {
        request_id: requestId,
        method,
        route: route ?? 'unknown',
        status,
        ms: Math.round(milliseconds * 1000) / 1000,
        user_id: (context as { user?: { id: string } }).user?.id,
      }
      for (const observe of observers) {
        Object.assign(fields, observe({ requestId, method, route: route ?? 'unknown', status, milliseconds }))
      }
      log.info('request', fields)
    })

/** An id from outside is taken over when it cannot do harm in a log. */
const isSane = (id: string) => id.length <= 128 && /^[\w.:-]+$/.test(id)
