import type { Config } from '../config/config.ts'
import { loadSecretKey } from '../config/secret-key.ts'
import { undistributedTables } from '../db/distribute.ts'
import type { Driver } from '../db/driver.ts'
import { migrate, migrationState, migrations } from '../db/migrator.ts'
import { openDriver } from '../db/open-driver.ts'
import { databaseError, unavailableStates } from '../db/pg-error.ts'
import { withTimeBudget } from '../db/time-budget.ts'
import type { Readiness } from '../http/health.ts'
import { networkOf } from '../lib/client-address.ts'
import { AppError } from '../lib/errors.ts'
import { onceAMinute } from '../lib/once-a-minute.ts'
import { errorFields, type Log } from '../telemetry/log.ts'
import { type BackupStats, startBackups } from './backups.ts'
import type { Supervisor } from './cluster/worker-channel.ts'
import { schedule } from './jobs.ts'
import { type Listener, listen } from './listener.ts'
import { startTelemetry } from './telemetry.ts'

/** How many seconds a stop may take. */
export const stopLimits = {
  /** For requests in flight. */
  inFlight: 10,
  /** For running jobs. */
  jobs: 1,
  /** For everything together. */
  all: 14,
}

/** Runs the service behind a listener: opens the database, applies migrations, and serves until `stop`. */
export async function serve(
  config: Config,
  log: Log,
  { server, attach }: Listener = listen(config, log),
  supervisor?: Supervisor,
  limits = stopLimits,
) {
  // 1. The database, and the secret that signs tokens.
  const warnOfShortage = onceAMinute((cause: unknown) =>
    log.warn('too few connections to the database', errorFields(cause)),
  )
  const warnThatAway = onceAMinute((cause: unknown) =>
    log.warn('the database does not answer', errorFields(cause)),
  )
  const database = await openDriver(config.database, warnOfShortage)
  const telemetry = await startTelemetry(config, database, log, supervisor)
  const { driver } = telemetry
  const secretKey = config.secretKey ?? loadSecretKey(config.dataDir)

  // 2. Migrations: the database connects while the app is loaded and made. Until they have run, requests that need it get 503.
  let stopping = false
  let isPrepared = false
  const made = Promise.withResolvers<App>()
  const migrated = migrateWhenPossible(
    driver,
    log,
    async () => (await made.promise).prepare(),
    () => stopping,
  ).then(() => {
    isPrepared = true
  })
  // The caller awaits it later; a failure before that would be an unhandled rejection.
  migrated.catch(() => {})

  // 3. The app.
  const createApp = await loadApp()
  const backups = config.backups && startBackups(config.backups, log)
  const parts = createApp({
    config,
    secretKey,
    driver,
    log,
    readiness: readinessOf(driver, () => ({ stopping, isPrepared }), backups?.stats, warnThatAway),
    peerOf: request => server.requestIP(request)?.address ?? null,
    observers: telemetry.observers,
    plugins: telemetry.plugins,
  })
  made.resolve(parts)
  const { app, clientOf, jobs, stats, endStreams } = parts
  const inFlight = () => server.pendingRequests - stats.streams().open
  telemetry.setSources({ ...stats, inFlight, backups: backups?.stats })
  // The next request on a kept connection would be lost.
  app.onRequest(({ set }) => {
    if (stopping) set.headers.connection = 'close'
  })
  const handle = handlerOf(app)
  const addressOf = (request: Request) => networkOf(clientOf(request).ip)
  attach(
    request =>
      withTimeBudget(
        () => handle(request),
        () => addressOf(request),
      ),
    addressOf,
  )

  // 4. Background jobs; the first run comes long after the migrations.
  const background = schedule(jobs, log)

  // 5. A clean stop, in any state.
  async function stop(reason: string, delaySeconds = config.shutdownDelaySeconds): Promise<void> {
    if (stopping) return
    stopping = true
    log.info('stopping', { reason })
    const streamsEnded = endStreams()
    // `/health/ready` fails from now on; requests are answered until load balancers have noticed.
    await Bun.sleep(delaySeconds * 1000)
    const until = performance.now() + limits.all * 1000
    // `stop()` closes the listener and waits for requests in flight; `stop(true)` ends those that take too long, and the
    // streams of clients that do not read.
    const answered = streamsEnded.then(() => untilZero(inFlight))
    await Promise.race([server.stop(), answered, Bun.sleep(limits.inFlight * 1000)])
    await server.stop(true)
    // The last access lines are logged one turn later.
    await new Promise(setImmediate)
    await Promise.race([Promise.all([background.stop(), backups?.stop()]), Bun.sleep(limits.jobs * 1000)])
    await Promise.all([driver.close((until - performance.now()) / 1000), telemetry.stop()])
    log.info('stopped')
  }

  return { url: server.url.href, driver, stop, migrated }
}

type App = ReturnType<Awaited<ReturnType<typeof loadApp>>>

/**
 * Loads the largest modules. In between the event loop turns twice, for early requests and for the database: what has
 * arrived is read, and what follows from it is sent.
 */
async function loadApp() {
  const parts = [
    () => import('elysia'),
    () => import('../db/drizzle.ts'),
    () => import('../modules/table-registry.ts'),
    () => import('../modules/tasks/model.ts'),
    () => import('../modules/tasks/service.ts'),
    () => import('../modules/auth/routes.ts'),
    () => import('./app.ts'),
  ]
  for (const load of parts) {
    await new Promise(setImmediate)
    await load()
    await new Promise(setImmediate)
  }
  return (await import('./app.ts')).createApp
}

/**
 * The app as a function. Elysia requests a garbage collection when it composes one, a fourteenth of the start for next to no
 * garbage. Without it the runtime collects when there is some.
 */
function handlerOf(app: App['app']): (request: Request) => Response | Promise<Response> {
  const { gc } = Bun
  Object.assign(Bun, { gc: () => 0 })
  try {
    return app.fetch
  } finally {
    Object.assign(Bun, { gc })
  }
}

/** Not loaded before the database is asked for the first time. */
const distributedTables = async () => (await import('../modules/table-registry.ts')).distributedTables

async function untilZero(count: () => number): Promise<void> {
  while (count() > 0) await Bun.sleep(20)
}

const retryEveryMs = 500

/** Waits for a database that is away. Throws when migrations cannot be applied. */
async function migrateWhenPossible(
  driver: Driver,
  log: Log,
  prepare: () => Promise<void>,
  isStopping: () => boolean,
): Promise<void> {
  const onWait = (error: unknown) =>
    log.warn('waiting for a lock: another session uses the tables', errorFields(error))
  for (let attempt = 0; !isStopping(); attempt++) {
    try {
      const { pending, newer } = await migrationState(driver)
      const applied =
        pending.length > 0 ? await migrate(driver, await distributedTables(), migrations, onWait) : []
      if (applied.length > 0) log.info('migrated', { applied: applied.length, last: applied.at(-1) })
      if (newer > 0) log.warn('the database was migrated by a newer todo-api: upgrade this one', { newer })
      return await prepare()
    } catch (error) {
      if (!isAway(error)) throw error
      if (attempt % 20 === 0) log.warn('waiting for the database', errorFields(error))
      await Bun.sleep(retryEveryMs)
    }
  }
}

/** Whether a failure passes by itself. A wrong password (28) or name of the database (3D) does not, nor damage (58, XX). */
export function isAway(error: unknown): boolean {
  const code = databaseError(error)?.code
  return code ? unavailableStates.test(code) && !/^(28|3D|58|XX)/.test(code) : error instanceof AppError
}

function readinessOf(
  driver: Driver,
  state: () => { stopping: boolean; isPrepared: boolean },
  backups: (() => BackupStats) | undefined,
  onAway: (cause: unknown) => void,
): Readiness {
  return async () => {
    if (state().stopping) return { ready: false, reason: 'the service is stopping' }
    try {
      const { pending } = await migrationState(driver)
      if (pending.length > 0) return { ready: false, reason: 'migrations are pending' }
      const missing = await undistributedTables(driver, await distributedTables())
      if (missing?.length)
        return { ready: false, reason: `not distributed, run todo-api migrate: ${missing}` }
      if (!state().isPrepared) return { ready: false, reason: 'the service is starting' }
      const lastGoodAt = backups?.().lastGoodAt?.toISOString() ?? null
      return { ready: true, lastBackupAt: backups && lastGoodAt }
    } catch (error) {
      onAway(error)
      return { ready: false, reason: 'the database does not answer' }
    }
  }
}
