import { type AnyElysia, Elysia } from 'elysia'
import type { Config } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { createDb } from '../db/drizzle.ts'
import { migrations } from '../db/migrator.ts'
import { requireBodyRoom } from '../http/body-room.ts'
import { createClientOf, type PeerOf, reportUntrustedProxy } from '../http/client.ts'
import { cors, createOriginList } from '../http/cors.ts'
import { docs } from '../http/docs.ts'
import { createAnswerTags } from '../http/entity-tag.ts'
import { errorHandler } from '../http/error-handler.ts'
import { health, type Readiness } from '../http/health.ts'
import { requestLog } from '../http/request-log.ts'
import type { Routes } from '../http/route-table.ts'
import { securityHeaders } from '../http/security-headers.ts'
import { refuseUnknownNames } from '../http/unknown-names.ts'
import { createApiTokens } from '../modules/auth/api-tokens.ts'
import { createCleanUp } from '../modules/auth/clean-up.ts'
import { createWithPassword } from '../modules/auth/current-password.ts'
import { createFirstUser } from '../modules/auth/new-user.ts'
import { createPasswords } from '../modules/auth/password-hash.ts'
import { createRefreshTokens } from '../modules/auth/refresh-tokens.ts'
import { authRoutes } from '../modules/auth/routes.ts'
import { createSessions } from '../modules/auth/sessions.ts'
import { createThrottle } from '../modules/auth/throttle.ts'
import { createTickets } from '../modules/auth/tickets.ts'
import { createRevocationPoll, createTokenCache } from '../modules/auth/token-cache.ts'
import { createTokens } from '../modules/auth/tokens.ts'
import { eventRoutes } from '../modules/events/routes.ts'
import { createStreams } from '../modules/events/streams.ts'
import { listRoutes } from '../modules/lists/routes.ts'
import { createListService } from '../modules/lists/service.ts'
import { mcpRoutes } from '../modules/mcp/routes.ts'
import { taskRoutes } from '../modules/tasks/routes.ts'
import { createTaskService } from '../modules/tasks/service.ts'
import { userRoutes } from '../modules/users/routes.ts'
import { createUserService } from '../modules/users/service.ts'
import type { Log } from '../telemetry/log.ts'
import type { Observer } from '../telemetry/observer.ts'
import type { Job } from './jobs.ts'

interface AppParts {
  config: Config
  secretKey: string
  driver: Driver
  log: Log
  readiness: Readiness
  /** Injected, because only a listening server knows it. */
  peerOf: PeerOf
  /** Called with every answered request. */
  observers?: Observer[]
  /** Routes of the telemetry: `/metrics`. */
  plugins?: AnyElysia[]
}

/** The whole service as one Elysia app, its preparation, background jobs and figures. Nothing listens or runs yet. */
export function createApp(parts: AppParts) {
  const { config, log, readiness, peerOf, observers = [], plugins = [] } = parts
  const { auth, users, tasks, lists, streams, prepare, jobs, stats } = createServices(parts)

  // The JSON of tasks and lists is in the database, so it has another form only after a migration.
  const answerTags = createAnswerTags(parts.secretKey, migrations.at(-1)!.tag)

  const isListed = createOriginList(config)
  let routes: Routes = []
  const resources = {
    auth: authRoutes(auth),
    users: userRoutes({ users, ...auth }),
    tasks: taskRoutes(tasks, auth.sessions.authenticate, answerTags),
    events: eventRoutes({ tasks, streams, ...auth }),
    lists: listRoutes(lists, auth.sessions.authenticate, answerTags),
  }
  const under = <const Prefix extends string>(prefix: Prefix, detail = {}) =>
    new Elysia({ prefix, detail })
      .use(refuseUnknownNames(() => routes))
      .use(resources.auth)
      .use(resources.users)
      .use(resources.tasks)
      .use(resources.events)
      .use(resources.lists)

  // The order matters: a hook covers only what is registered after it. `standardHostname`: Elysia assumes that a host
  // has more than three letters, and finds no path in http://api/.
  const app = new Elysia({ handler: { standardHostname: false } })
    .headers(securityHeaders)
    .use(requestLog(log, [...observers, streams.observe]))
    .use(reportUntrustedProxy(config.trustedProxies, peerOf, log))
    .use(errorHandler(log, () => routes))
    .use(cors(isListed, log))
    .onRequest(requireBodyRoom)
    .use(health(readiness))
    .use(docs(config.registration, () => routes))
    .use(under('/api/v1'))
    // The same routes for clients of the FastAPI service, which had no version in its addresses.
    .use(under('/api', { hide: true }))
  if (config.mcp)
    app.use(mcpRoutes({ services: { tasks, lists }, authenticate: auth.sessions.authenticate, isListed }))
  for (const plugin of plugins) app.use(plugin)
  routes = app.routes

  return { app, clientOf: auth.clientOf, prepare, jobs, stats, endStreams: streams.stop }
}

/** For typed clients: `treaty<App>` of @elysiajs/eden. */
export type App = ReturnType<typeof createApp>['app']

function createServices({ config, secretKey, driver, log, peerOf }: AppParts) {
  const db = createDb(driver)
  const { algorithm, accessTokenLifetimeSeconds: lifetimeSeconds } = config
  const tokens = createTokens({ secretKey, algorithm, lifetimeSeconds })
  const refreshTokens = createRefreshTokens(secretKey)
  const passwords = createPasswords({ cost: config.bcryptCost, ...config.hashing })
  const throttle = createThrottle(driver, config.throttle)
  const withPassword = createWithPassword({ db, passwords, throttle })
  // Each stream has its token checked several times a second.
  const tokenCache = createTokenCache(createRevocationPoll(db), 10_000 + config.streamsMax)
  const apiTokens = createApiTokens({ db, tokenCache, withPassword })
  const sessions = createSessions({ db, tokens, refreshTokens, apiTokens, tokenCache })
  const tasks = createTaskService({ db, log, secretKey })
  const lists = createListService({ db, secretKey })
  const tickets = createTickets({ db, tokens, secretKey })
  const { authenticate } = sessions
  const streams = createStreams({ db, log, tasks, authenticate, streamsMax: config.streamsMax })
  const { registration } = config
  const clientOf = createClientOf(config.trustedProxies, peerOf)
  const auth = { registration, db, sessions, apiTokens, passwords, throttle, tickets, clientOf }
  const users = createUserService({ db, passwords, withPassword, tokenCache })

  /** What the database needs besides migrations. */
  const prepare = async () => {
    if (config.firstUser) await createFirstUser({ db, passwords, log }, config.firstUser)
  }
  const jobs: Job[] = [
    ...createCleanUp(db),
    { name: 'purge the trash', everySeconds: 600, run: tasks.purge },
    ...streams.jobs,
  ]
  const stats = {
    hashing: passwords.stats,
    throttled: throttle.stats,
    cachedTokens: () => tokenCache.size,
    streams: streams.stats,
  }
  return { auth, users, tasks, lists, streams, prepare, jobs, stats }
}
