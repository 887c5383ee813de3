import { cors } from '@elysiajs/cors'
import { type AnyElysia, Elysia } from 'elysia'
import type { Config } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { createDb } from '../db/drizzle.ts'
import { docs } from '../http/docs.ts'
import { errorHandler } from '../http/error-handler.ts'
import { health, type Readiness } from '../http/health.ts'
import { requestLog } from '../http/request-log.ts'
import { securityHeaders } from '../http/security-headers.ts'
import { createClientAddress } from '../lib/client-address.ts'
import { createPasswords } from '../modules/auth/passwords.ts'
import { createRefreshTokens } from '../modules/auth/refresh-tokens.ts'
import { authRoutes, sessionRoutes } from '../modules/auth/routes.ts'
import { createAuthService } from '../modules/auth/service.ts'
import { createThrottle } from '../modules/auth/throttle.ts'
import { createTokens } from '../modules/auth/tokens.ts'
import { taskRoutes } from '../modules/tasks/routes.ts'
import { createTaskService } from '../modules/tasks/service.ts'
import { userRoutes } from '../modules/users/routes.ts'
import { createUserService } from '../modules/users/service.ts'
import type { Log } from '../telemetry/log.ts'
import type { Observer } from '../telemetry/observer.ts'
import type { Job } from './jobs.ts'

export interface AppParts {
  config: Config
  secretKey: string
  driver: Driver
  log: Log
  readiness: Readiness
  /** The other end of a request's connection; injected, because only a listening server knows it. */
  peerOf: (request: Request) => string | null
  /** Who hears of every request that was answered. */
  observers?: Observer[]
  /** What stands around every request; `/metrics`. */
  plugins?: AnyElysia[]
}

/**
 * The whole service as one Elysia app, and what it does by itself now and then. Nothing listens or runs yet. The order
 * matters: a hook covers only what is registered after it.
 */
export function createApp({
  config,
  secretKey,
  driver,
  log,
  readiness,
  peerOf,
  observers,
  plugins = [],
}: AppParts) {
  const db = createDb(driver)
  const { algorithm, accessTokenLifetimeSeconds: lifetimeSeconds } = config
  const tokens = createTokens({ secretKey, algorithm, lifetimeSeconds })
  const passwords = createPasswords({ cost: config.bcryptCost, ...config.hashing })
  const refreshTokens = createRefreshTokens(secretKey)
  const throttle = createThrottle({ db, driver }, config.throttle)
  const auth = createAuthService({ db, tokens, refreshTokens, passwords, throttle })
  const users = createUserService({ db, passwords, throttle, auth })
  const tasks = createTaskService({ db, log, secretKey })

  const { authenticate } = auth
  const addressOf = createClientAddress(config.trustedProxies)
  const clientOf = (request: Request) => ({
    ip: addressOf(peerOf(request), request.headers.get('x-forwarded-for')),
    userAgent: request.headers.get('user-agent')?.slice(0, 500) ?? null,
    signal: request.signal,
  })

  const api = (prefix: string, { hide }: { hide: boolean }) =>
    new Elysia({ prefix, detail: { hide } })
      .use(authRoutes({ auth, throttle, clientOf }))
      .use(sessionRoutes(auth, authenticate))
      .use(userRoutes({ users, authenticate, clientOf }))
      .use(taskRoutes(tasks, authenticate))

  let routes: AnyElysia['routes'] = []
  // Otherwise Elysia takes every host for longer than three letters, and finds nothing at http://api/.
  const app = new Elysia({ handler: { standardHostname: false } })
    .headers(securityHeaders)
    .use(requestLog(log, observers))
    .use(errorHandler(log, () => routes))
    .use(crossOrigin(config.frontendUrls))
    .use(health(readiness))
    .use(docs())
    .use(api('/api/v1', { hide: false }))
    // The same again for clients of the first service, which had no version in its addresses.
    .use(api('/api', { hide: true }))
  for (const plugin of plugins) app.use(plugin)
  routes = app.routes

  const jobs: Job[] = [
    { name: 'clean up sessions', everySeconds: 600, run: auth.cleanUp },
    { name: 'purge the trash', everySeconds: 900, run: tasks.purge },
  ]
  /** What the app knows of itself, for the metrics. */
  const stats = {
    hashing: passwords.stats,
    throttled: throttle.stats,
    rememberedTokens: auth.cachedTokens,
  }
  return { app, jobs, stats }
}

export type App = ReturnType<typeof createApp>['app']

/** Everything is named: the plugin's defaults would let any page call with the person's credentials. */
const crossOrigin = (origin: string[]) =>
  new Elysia()
    .use(cors({ ...corsRules, origin }))
    // A route, because the plugin would answer before there is an access line.
    .options('/', preflight, { detail: { hide: true } })
    .options('/*', preflight, { detail: { hide: true } })

function preflight({ set }: { set: { status?: number | string; headers: Record<string, unknown> } }) {
  set.status = 204
  set.headers['access-control-max-age'] = 600
}

const corsRules = {
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
    'ratelimit',
    'ratelimit-policy',
    'retry-after',
    'x-request-id',
    'x-total-count',
  ],
}
