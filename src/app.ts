import { cors } from '@elysiajs/cors'
import { type AnyElysia, Elysia } from 'elysia'
import type { Config } from './config.ts'
import { createDb } from './db/client.ts'
import type { Driver } from './db/driver.ts'
import { docs } from './http/docs.ts'
import { errorHandler } from './http/error-handler.ts'
import { health, type Readiness } from './http/health.ts'
import { requestLog } from './http/request-log.ts'
import type { Log } from './log.ts'
import { createPasswords } from './modules/auth/passwords.ts'
import { authRoutes } from './modules/auth/routes.ts'
import { createAuthService } from './modules/auth/service.ts'
import { createTokens } from './modules/auth/tokens.ts'
import { taskRoutes } from './modules/tasks/routes.ts'
import { createTaskService } from './modules/tasks/service.ts'
import { userRoutes } from './modules/users/routes.ts'
import { createUserService } from './modules/users/service.ts'

export interface AppParts {
  config: Config
  secretKey: string
  driver: Driver
  log: Log
  readiness: Readiness
  /** The address of whoever sent a request; injected, because only a listening server knows it. */
  clientIp: (request: Request) => string | null
}

/**
 * The whole service as one Elysia app; it listens to nothing yet. The order matters: a hook covers only what is
 * registered after it.
 */
export function createApp({ config, secretKey, driver, log, readiness, clientIp }: AppParts) {
  const db = createDb(driver)
  const { algorithm, accessTokenLifetimeSeconds: lifetimeSeconds } = config
  const tokens = createTokens({ secretKey, algorithm, lifetimeSeconds })
  const passwords = createPasswords({ cost: config.bcryptCost, ...config.hashing })
  const auth = createAuthService({ db, driver, tokens, passwords })
  const users = createUserService(db)
  const tasks = createTaskService(db, driver)

  const api = (prefix: string, { hide }: { hide: boolean }) =>
    new Elysia({ prefix, detail: { hide } })
      .use(authRoutes(auth, clientIp))
      .use(userRoutes(users, auth.authenticate))
      .use(taskRoutes(tasks, auth.authenticate))

  let routes: AnyElysia['routes'] = []
  const app = new Elysia()
    .use(requestLog(log))
    .use(errorHandler(log, () => routes))
    .use(crossOrigin(config.frontendUrls))
    .use(health(readiness))
    .use(docs())
    .use(api('/api/v1', { hide: false }))
    // The same again for clients of the first service, which had no version in its addresses.
    .use(api('/api', { hide: true }))
  routes = app.routes
  return app
}

export type App = ReturnType<typeof createApp>

/** Everything is named: the plugin's defaults would let any page call with the person's credentials. */
const crossOrigin = (origin: string[]) =>
  cors({
    origin,
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowedHeaders: [
      'authorization',
      'content-type',
      'if-match',
      'if-none-match',
      'idempotency-key',
      'x-request-id',
    ],
    exposeHeaders: ['etag', 'link', 'location', 'retry-after', 'x-request-id', 'x-total-count'],
    maxAge: 600,
  })
