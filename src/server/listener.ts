import type { Config } from '../config/config.ts'
import { bind } from '../http/bind.ts'
import { createBodyRoom, mayBeLarge } from '../http/body-room.ts'
import { dropBody } from '../http/body-stream.ts'
import { securityHeaders } from '../http/security-headers.ts'
import { claimName } from '../lib/claim-name.ts'
import { AppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'

type Handler = (request: Request) => Response | Promise<Response>
type AddressOf = (request: Request) => string

export type Listener = ReturnType<typeof listen>

/** Far above the limits of `http/body-sizes.ts`, whose answer has the API's shape. */
const serverBytesMax = 1024 * 1024 * 1024

/**
 * Seconds that a connection may be idle between two requests and within an answer, and that a whole body may take. Bun closes
 * a connection whose headers take longer than 12 s. A proxy in front must close idle connections earlier, or it may send a
 * request into one that is being closed here.
 */
export const idleSeconds = 30

/**
 * One packet may hold thousands of requests: each 500th waits for a turn of the event loop. Where they are pipelined, Bun
 * then closes the connection.
 */
export const requestsAtOnce = 500

/**
 * Listens before the app is loaded and its database opened: a port in use is noticed at once, and early requests wait
 * instead of being refused. Before `attach` only `/health` and `/health/live` are answered, which say that the process
 * is alive. Throws when it cannot listen there.
 */
export function listen({ host, port, workers }: Pick<Config, 'host' | 'port' | 'workers'>, log: Log) {
  const attached = Promise.withResolvers<Handler>()
  let handle: Handler = request =>
    earlyProbe(request, log) ?? attached.promise.then(handler => handler(request))
  let addressOf: AddressOf = () => 'not known yet'
  const withRoom = createBodyRoom()

  let requests = 0
  async function later(request: Request) {
    await new Promise(setImmediate)
    return handle(withHost(request))
  }
  const answer = (request: Request) =>
    ++requests % requestsAtOnce === 0 ? later(request) : handle(withHost(request))
  const answerBody = (request: Request) =>
    mayBeLarge(request) ? withRoom(request, addressOf(request), answer) : answer(request)

  const server = bind({ host, port }, () =>
    Bun.serve({
      hostname: host,
      port,
      // Only workers of one supervisor share a port.
      reusePort: workers > 1,
      maxRequestBodySize: serverBytesMax,
      idleTimeout: idleSeconds,
      // Bun's error page for developers shows source code.
      development: false,
      error: error => lastResort(error, log),
      fetch: request => (hasMore(request) ? afterBody(request, answerBody(request)) : answer(request)),
    }),
  )

  return {
    server,
    /** Answers waiting and further requests with `handler`. `clientAddress`: of the client, also behind a trusted proxy. */
    attach(handler: Handler, clientAddress = addressOf) {
      handle = handler
      addressOf = clientAddress
      attached.resolve(handler)
    },
  }
}

/**
 * Reserves the port of the workers: workers of another supervisor could share it. Returns its number, which differs from
 * `port` if that is 0. Throws when it is in use.
 */
export function claimPort({ host, port }: Pick<Config, 'host' | 'port'>): number {
  return bind({ host, port }, () => {
    // First, because to try the port would disturb its owner.
    if (port !== 0) claimName(`${host}:${port}`)
    const probe = Bun.serve({ hostname: host, port, reusePort: false, fetch: () => new Response() })
    const found = probe.port!
    void probe.stop(true)
    return found
  })
}

/**
 * HTTP/1.0 allows requests without `Host` (health checks of load balancers), whose `url` is only a path; and a `Host` such as
 * `[` makes one that no code can parse. The service answers under any name, so both get one. It is set on the request
 * itself: a copy would have no peer, and pass the limits for each address.
 */
function withHost(request: Request): Request {
  const { url } = request
  if (URL.canParse(url)) return request
  const path = url.startsWith('/') ? url : url.slice(url.indexOf('/', 'http://'.length))
  return Object.defineProperty(request, 'url', { value: `http://localhost${path}` })
}

/** Whether more than the head of a request arrives: a body, or after a CONNECT what Bun takes for a tunnel. */
const hasMore = ({ method, headers }: Request) =>
  method === 'CONNECT' || (headers.get('content-length') ?? '0') !== '0' || headers.has('transfer-encoding')

/**
 * No answer overtakes the body of its request: what no route has read of it is read here, or the connection is closed. A proxy
 * that shares its connections could take this one for free, and send the next client's request as the rest of this one:
 * HAProxy 2.6 does when a client with HTTP/2 gives up an upload that was refused. After a chunked body the connection is
 * closed in any case: to one with a trailer Bun sends a second answer, a 400, which would be the next client's.
 */
async function afterBody(request: Request, answer: Response | Promise<Response>): Promise<Response> {
  const response = await answer
  // Of GET, HEAD and CONNECT Bun shows no body.
  const isRead = request.bodyUsed || (request.body !== null && (await dropBody(request.body)))
  if (!isRead || request.headers.has('transfer-encoding')) response.headers.set('connection', 'close')
  return response
}

function earlyProbe({ method, url }: Request, log: Log): Response | undefined {
  const { pathname: route } = new URL(url)
  if (method !== 'GET' || (route !== '/health' && route !== '/health/live')) return undefined
  const requestId = Bun.randomUUIDv7()
  log.info('request', { request_id: requestId, method, route, status: 200, ms: 0 })
  return Response.json({ status: 'healthy' }, { headers: { ...securityHeaders, 'x-request-id': requestId } })
}

/** Failures outside of the app's error handler, in the same shape. */
function lastResort(error: unknown, log: Log): Response {
  const { status, code, detail } = new AppError('internal')
  const requestId = Bun.randomUUIDv7()
  log.error('request failed', { request_id: requestId, ...errorFields(error) })
  const headers = { ...securityHeaders, 'content-type': 'application/json', 'x-request-id': requestId }
  return new Response(JSON.stringify({ detail, code, request_id: requestId }), { status, headers })
}
