import type { AnyElysia } from 'elysia'
import { version } from '../../package.json'
import type { Config } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { observeDriver } from '../db/instrumented-driver.ts'
import type { Log } from '../telemetry/log.ts'
import type { Sources } from '../telemetry/metrics.ts'
import type { Supervisor } from './cluster/worker-channel.ts'

/** Metrics and traces, if the settings ask for them; otherwise their code is not loaded. */
export async function startTelemetry(config: Config, database: Driver, log: Log, supervisor?: Supervisor) {
  const about = { version, database: database.kind }
  const metrics =
    config.metrics && (await import('../telemetry/metrics.ts')).createMetrics(about, supervisor?.worker)
  const tracing =
    config.tracing &&
    (await import('../telemetry/tracing.ts')).createTracing({ env: config.tracing, version, log })
  const instruments = [metrics, tracing].filter(instrument => instrument !== undefined)

  const plugins: AnyElysia[] = []
  if (tracing) plugins.push(tracing.requests)
  if (metrics && config.metrics) {
    const { metricsRoute, serveMetrics } = await import('../http/metrics-endpoint.ts')
    const { port, token } = config.metrics
    // A scrape reaches one of the workers, and must show all of them.
    const shown = supervisor ? { ...metrics, text: supervisor.metrics } : metrics
    if (port === undefined) plugins.push(metricsRoute(shown, token!))
    else if (!supervisor) serveMetrics(metrics, config.metrics, log)
  }

  return {
    plugins,
    /** The database with instruments around every statement. */
    driver: instruments.reduce(
      (driver, { aroundStatement }) => observeDriver(driver, aroundStatement),
      database,
    ),
    observers: instruments.map(instrument => instrument.observe),
    /** Sets the sources of the gauges. */
    setSources(sources: Omit<Sources, 'database' | 'logLinesDropped'>) {
      metrics?.setSources({ ...sources, database: () => database.stats?.(), logLinesDropped: log.dropped })
    },
    async stop() {
      await Promise.all(instruments.map(instrument => instrument.stop()))
    },
  }
}
