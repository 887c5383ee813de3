import type { AnyElysia } from 'elysia'
import { version } from '../package.json'
import type { Config } from './config.ts'
import type { Driver } from './db/driver.ts'
import { observeDriver } from './db/observed.ts'
import { metricsRoute, serveMetrics } from './http/metrics.ts'
import type { Log } from './log.ts'
import type { Sources } from './metrics.ts'
import type { Supervisor } from './worker.ts'

/** Metrics and traces, as far as somebody asks for them; otherwise nothing of theirs is even loaded. */
export async function observe(config: Config, database: Driver, log: Log, supervisor?: Supervisor) {
  const metrics =
    config.metrics && (await import('./metrics.ts')).createMetrics({ version, database: database.kind })
  const tracing =
    config.tracing && (await import('./tracing.ts')).createTracing({ env: config.tracing, version, log })
  const watchers = [metrics, tracing].filter(watcher => watcher !== undefined)

  /** On a port of their own, or as a route of the app. */
  const extras: AnyElysia[] = []
  let server: Bun.Server<undefined> | undefined
  if (tracing) extras.push(tracing.requests)
  if (metrics && config.metrics) {
    const { port, token } = config.metrics
    supervisor?.onCount(metrics.counts)
    if (port === undefined) {
      // One worker's numbers are of no use to whoever cannot choose the worker.
      const { contentType } = metrics
      extras.push(metricsRoute(supervisor ? { contentType, text: supervisor.metrics } : metrics, token!))
    } else if (!supervisor) {
      server = serveMetrics(metrics, { ...config.metrics, port })
      log.info('metrics', { url: `${server.url}metrics` })
    }
  }

  return {
    extras,
    /** The database, with every statement observed. */
    driver: watchers.reduce(
      (driver, { aroundStatement }) => observeDriver(driver, aroundStatement),
      database,
    ),
    observers: watchers.map(watcher => watcher.observe),
    /** Tells the metrics what to ask when they are read. */
    watch(sources: Omit<Sources, 'database'>) {
      metrics?.watch({ ...sources, database: () => database.stats?.() })
    },
    async stop() {
      await Promise.all(watchers.map(watcher => watcher.stop()))
      await server?.stop(true)
    },
  }
}
