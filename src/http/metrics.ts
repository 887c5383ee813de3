import { timingSafeEqual } from 'node:crypto'
import { Elysia } from 'elysia'
import { AppError } from '../errors.ts'

/** What `/metrics` shows. */
interface Text {
  contentType: string
  text(): Promise<string>
}

/** `/metrics` on the port of the API, for whoever has the token. */
export const metricsRoute = (metrics: Text, token: string) => {
  const isAllowed = tokenCheck(token)
  return new Elysia({ name: 'metrics', detail: { hide: true } }).get('/metrics', ({ headers, set }) => {
    if (!headers.authorization) throw new AppError('not_authenticated')
    if (!isAllowed(headers.authorization)) throw new AppError('invalid_token')
    set.headers['content-type'] = metrics.contentType
    return metrics.text()
  })
}

interface Listener {
  host: string
  port: number
  token: string | undefined
}

/** `/metrics` on a port of its own, which the public does not reach. */
export function serveMetrics(metrics: Text, { host, port, token }: Listener) {
  const isAllowed = token === undefined ? () => true : tokenCheck(token)
  return Bun.serve({
    hostname: host,
    port,
    reusePort: false,
    development: false,
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
}

/** Compares digests, so that the time it takes says nothing about the token. */
function tokenCheck(token: string) {
  const digest = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest()
  const wanted = digest(`Bearer ${token}`)
  return (authorization: string) => timingSafeEqual(digest(authorization), wanted)
}
