import { Elysia } from 'elysia'
import type { Fields, Log } from '../telemetry/log.ts'
import type { Observer } from '../telemetry/observer.ts'

/** Assigns every request an id, and writes its access line when it has been answered. */
export const requestLog = (log: Log, observers: readonly Observer[] = []) =>
  new Elysia({ name: 'request-log' })
    .decorate({ requestId: '', startedAt: 0 })
    .onRequest(context => {
      const sent = context.request.headers.get('x-request-id')
      context.requestId = sent && isSafe(sent) ? sent : Bun.randomUUIDv7()
      context.startedAt = performance.now()
      context.set.headers['x-request-id'] = context.requestId
    })
    .onAfterResponse({ as: 'global' }, context => {
      const { requestId, startedAt, request, route, set, responseValue } = context
      const { method } = request
      const status = responseValue instanceof Response ? responseValue.status : Number(set.status ?? 200)
      const milliseconds = performance.now() - startedAt
      const userId = (context as { user?: { id: string } }).user?.id
      const fields: Fields = {
        request_id: requestId,
        method,
        route: route ?? 'unknown',
        status,
        ms: Math.round(milliseconds * 1000) / 1000,
        user_id: userId,
      }
      for (const observe of observers) {
        const answered = { requestId, method, route: route ?? 'unknown', status, userId, milliseconds }
        Object.assign(fields, observe(answered))
      }
      log.info('request', fields)
    })

/** A client's own id is kept if it can do no harm in a log. */
const isSafe = (id: string) => id.length <= 128 && /^[\w.:-]+$/.test(id)
