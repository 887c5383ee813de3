import type { Config } from '../config/config.ts'
import { bind } from '../http/bind.ts'
import { securityHeaders } from '../http/security-headers.ts'
import { AppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'

type Handler = (request: Request) => Response | Promise<Response>

export type Listener = ReturnType<typeof listen>

/** Bun's own limit, far over ours: `http/body.ts` answers in our shape before it is reached. */
const bodyBytesMax = 1024 * 1024 * 1024

/**
 * Seconds that a connection may rest between two requests, a body may take to come, and an answer to be taken. Bun
 * itself ends a connection whose headers take longer than 12 s. A proxy in front must close a resting connection
 * earlier, or it may send a request into one that we are closing.
 */
export const idleSeconds = 30

/**
 * Listens before the app is loaded and its database opened: a port in use is found at once, and a client that comes
 * early waits instead of being refused. Only `/health` and `/health/live`, which say no more than that the process
 * answers, are answered before `attach`. Throws when it cannot listen there.
 */
export function listen({ host, port, workers }: Pick<Config, 'host' | 'port' | 'workers'>, log: Log) {
  const attached = Promise.withResolvers<Handler>()
  let handle: Handler = request =>
    earlyProbe(request, log) ?? attached.promise.then(handler => handler(request))

  const server = bind({ host, port }, () =>
    Bun.serve({
      hostname: host,
      port,
      // A second listener on the port is an error, unless both are workers of one supervisor.
      reusePort: workers > 1,
      maxRequestBodySize: bodyBytesMax,
      idleTimeout: idleSeconds,
      // Bun's page for developers would show the source.
      development: false,
      error: error => lastResort(error, log),
      fetch: request => handle(withHost(request)),
    }),
  )

  return {
    server,
    /** From now on `handler` answers, also the requests that have been waiting. */
    attach(handler: Handler) {
      handle = handler
      attached.resolve(handler)
    },
  }
}

/**
 * Finds out that no process has the port of the workers, and keeps other supervisors from it: their workers could share
 * it with ours. Throws when it is in use.
 */
export function claimPort({ host, port }: Pick<Config, 'host' | 'port'>): number {
  return bind({ host, port }, () => {
    // A name that the kernel knows as long as we live. First, because a look at the port would disturb its owner.
    const unix = `\0todo-api ${host}:${port}`
    if (port !== 0) Bun.listen({ unix, socket: { open: socket => void socket.end(), data() {} } })
    const look = Bun.serve({ hostname: host, port, reusePort: false, fetch: () => new Response() })
    const found = look.port!
    void look.stop(true)
    return found
  })
}

/**
 * HTTP/1.0 needs no `Host` (a load balancer's health check has none); without one a request's address is no URL. The
 * request itself is mended: a copy of it would have no peer, and pass every limit of an address.
 */
function withHost(request: Request): Request {
  const { url } = request
  return url.startsWith('/')
    ? Object.defineProperty(request, 'url', { value: `http://localhost${url}` })
    : request
}

function earlyProbe({ method, url }: Request, log: Log): Response | undefined {
  const { pathname: route } = new URL(url)
  if (method !== 'GET' || (route !== '/health' && route !== '/health/live')) return undefined
  const requestId = Bun.randomUUIDv7()
  log.info('request', { request_id: requestId, method, route, status: 200, ms: 0 })
  return Response.json({ status: 'healthy' }, { headers: { ...securityHeaders, 'x-request-id': requestId } })
}

/** For what fails outside of the app's own handler: the same shape, so that a client needs to know no other. */
function lastResort(error: unknown, log: Log): Response {
  const { status, code, detail } = new AppError('internal')
  const requestId = Bun.randomUUIDv7()
  log.error('request failed', { request_id: requestId, ...errorFields(error) })
  const headers = { ...securityHeaders, 'content-type': 'application/json', 'x-request-id': requestId }
  return new Response(JSON.stringify({ detail, code, request_id: requestId }), { status, headers })
}
