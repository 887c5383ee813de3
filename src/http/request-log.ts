import { Elysia } from 'elysia'
import type { Fields, Log } from '../telemetry/log.ts'
import type { Observer } from '../telemetry/observer.ts'

/** For what needs what `requestLog` has in the context: the request's id, and which `operation` it was. */
export const requestContext = new Elysia({ name: 'request-context' }).decorate({
  requestId: '',
  operation: '',
})

/**
 * Assigns every request an id, and writes its access line when it has been answered. A route with several operations says
 * in the context which `operation` it was.
 */
export const requestLog = (log: Log, observers: readonly Observer[] = []) =>
  new Elysia({ name: 'request-log' })
    .use(requestContext)
    .decorate({ startedAt: 0 })
    .onRequest(context => {
      const sent = context.request.headers.get('x-request-id')
      context.requestId = sent && isSafe(sent) ? sent : Bun.randomUUIDv7()
      context.startedAt = performance.now()
      context.set.headers['x-request-id'] = context.requestId
    })
    .onAfterResponse({ as: 'global' }, context => {
      const { requestId, startedAt, request, set, responseValue, operation } = context
      const { method } = request
      const route = `${context.route ?? 'unknown'}${operation && ` ${operation}`}`
      const status = responseValue instanceof Response ? responseValue.status : Number(set.status ?? 200)
      const milliseconds = performance.now() - startedAt
      const userId = (context as { user?: { id: string } }).user?.id
      const fields: Fields = {
        request_id: requestId,
        method,
        route,
        status,
        ms: Math.round(milliseconds * 1000) / 1000,
        user_id: userId,
      }
      for (const observe of observers) {
        Object.assign(fields, observe({ requestId, method, route, status, userId, milliseconds }))
      }
      log.info('request', fields)
    })

/** A client's own id is kept if it can do no harm in a log. */
const isSafe = (id: string) => id.length <= 128 && /^[\w.:-]+$/.test(id)
