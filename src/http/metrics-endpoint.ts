import { timingSafeEqual } from 'node:crypto'
import { Elysia } from 'elysia'
import type { Config } from '../config/config.ts'
import { AppError } from '../lib/errors.ts'
import type { Log } from '../telemetry/log.ts'
import { bind } from './bind.ts'
import { bearerToken } from './require-user.ts'

/** The metrics in the text format of Prometheus. */
interface Metrics {
  contentType: string
  text(): Promise<string>
}

/** `/metrics` on the port of the API, for clients that have the token. */
export const metricsRoute = (metrics: Metrics, token: string) => {
  const isAllowed = tokenCheck(token)
  return new Elysia({ name: 'metrics', detail: { hide: true } }).get('/metrics', ({ headers, set }) => {
    if (!headers.authorization) throw new AppError('not_authenticated')
    if (!isAllowed(headers.authorization)) throw new AppError('invalid_token')
    set.headers['content-type'] = metrics.contentType
    return metrics.text()
  })
}

/** `/metrics` on a port of its own, which need not be public; none if no port is set. */
export function serveMetrics(
  metrics: Metrics,
  { host, port, token }: NonNullable<Config['metrics']>,
  log: Log,
): void {
  if (port === undefined) return
  const isAllowed = token === undefined ? () => true : tokenCheck(token)
  const start = () =>
    Bun.serve({
      hostname: host,
      port,
      reusePort: false,
      development: false,
      error: () => new Response(null, { status: 503 }),
      routes: {
        '/metrics': {
          async GET({ headers }) {
            if (!isAllowed(headers.get('authorization') ?? '')) {
              return new Response(null, { status: 401, headers: { 'www-authenticate': 'Bearer' } })
            }
            return new Response(await metrics.text(), { headers: { 'content-type': metrics.contentType } })
          },
        },
      },
      fetch: () => new Response(null, { status: 404 }),
    })
  const server = bind({ host, port }, start, { host: 'METRICS_HOST', port: 'METRICS_PORT' })
  log.info('metrics', { url: `${server.url}metrics` })
}

/** Compares digests in constant time, so that its duration reveals nothing about the token. */
function tokenCheck(token: string) {
  const digest = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest()
  const wanted = digest(token)
  return (authorization: string) => timingSafeEqual(digest(bearerToken(authorization) ?? ''), wanted)
}
