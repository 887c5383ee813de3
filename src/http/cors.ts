import { cors as corsHeaders } from '@elysiajs/cors'
import { Elysia } from 'elysia'

/** Nothing is left to the plugin's defaults: they would let any page call with the user's credentials. */
const rules = {
  preflight: false,
  methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
  allowedHeaders: [
    'authorization',
    'content-type',
    'if-match',
    'if-none-match',
    'idempotency-key',
    'x-request-id',
  ],
  exposeHeaders: [
    'etag',
    'link',
    'location',
    'preference-applied',
    'ratelimit',
    'ratelimit-policy',
    'retry-after',
    'x-request-id',
    'x-total-count',
  ],
}

/** Lets pages of these origins call with credentials. */
export const cors = (origin: string[]) =>
  new Elysia({ detail: { hide: true } })
    .use(corsHeaders({ ...rules, origin }))
    // Preflights are routes, because the plugin would answer them before there is an access line.
    .options('/', preflight)
    .options('/*', preflight)

function preflight({ set }: { set: { status?: number | string; headers: Record<string, unknown> } }) {
  set.status = 204
  set.headers['access-control-max-age'] = 600
}
