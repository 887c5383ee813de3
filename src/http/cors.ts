import { cors as corsHeaders } from '@elysiajs/cors'
import { type Context, Elysia } from 'elysia'
import type { Config } from '../config/config.ts'
import type { Log } from '../telemetry/log.ts'

/** Whether pages of an origin may call with credentials. */
export type IsListed = (origin: string) => boolean

/** In development pages of this machine may, whatever their port: development servers choose it themselves. */
export function createOriginList({ frontendUrls, environment }: Config): IsListed {
  const listed = new Set(frontendUrls)
  return origin => listed.has(origin) || (environment === 'development' && isLocal(origin))
}

/** Nothing is left to the plugin's defaults: they would let any page call with the user's credentials. */
const rules = {
  preflight: false,
  // As one text: a list would be joined for each answer.
  methods: 'GET, HEAD, POST, PUT, PATCH, DELETE',
  // For a browser only the answer to its preflight counts: see below.
  allowedHeaders: ['authorization'],
  exposeHeaders: [
    'etag',
    'link',
    'location',
    'preference-applied',
    'ratelimit',
    'ratelimit-policy',
    'retry-after',
    'www-authenticate',
    'x-request-id',
    'x-total-count',
  ],
}

/** Lets pages of listed origins call with credentials and any header, and names the other origins in the log. */
export function cors(isListed: IsListed, log: Log) {
  const report = createReport(log)

  function isAllowed({ headers }: Request): boolean {
    const origin = headers.get('origin')
    if (origin === null) return false
    if (isListed(origin)) return true
    if (!isOwnPage(origin, headers)) report(origin)
    return false
  }

  return (
    new Elysia({ detail: { hide: true } })
      .use(corsHeaders({ ...rules, origin: isAllowed }))
      // Preflights are a route, because the plugin would answer them before there is an access line.
      .options('/*', preflight)
  )
}

/**
 * A page of the service's own origin, such as the Swagger page, needs no permission. A proxy may have changed `Host`; then the
 * browser's `Sec-Fetch-Site` says so. Who forges that is not named in the log, and gains nothing else.
 */
const isOwnPage = (origin: string, headers: Headers) =>
  URL.parse(origin)?.host === headers.get('host') || headers.get('sec-fetch-site') === 'same-origin'

const isLocal = (origin: string) => /^https?:\/\/(localhost|127\.0\.0\.1)(:\d+)?$/.test(origin)

/** An allowed page may send every header: tracing and error-reporting libraries add their own. */
function preflight({ request, set }: Pick<Context, 'request' | 'set'>) {
  set.status = 204
  set.headers['access-control-max-age'] = '600'
  const wanted = request.headers.get('access-control-request-headers')
  if (wanted !== null && set.headers['access-control-allow-origin'] !== undefined) {
    set.headers['access-control-allow-headers'] = wanted
    set.headers.vary = 'Origin, Access-Control-Request-Headers'
  }
}

const reportsPerMinuteMax = 100

/** Names an origin that was refused, once a minute; at most 100, so that no client fills the log or the memory. */
function createReport(log: Log) {
  const named = new Set<string>()
  let minute = 0
  return (origin: string) => {
    const now = Math.floor(Date.now() / 60_000)
    if (now !== minute) named.clear()
    minute = now
    const name = origin.slice(0, 200)
    if (named.has(name) || named.size >= reportsPerMinuteMax) return
    named.add(name)
    const remedy =
      name === 'null'
        ? 'a page from a file or in a sandbox has no origin: serve it'
        : 'if its pages may call, add it to FRONTEND_URL'
    log.warn('origin refused', { origin: name, remedy })
  }
}
