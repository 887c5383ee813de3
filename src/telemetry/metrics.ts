import { readdirSync } from 'node:fs'
import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { AroundStatement, DatabaseStats, Observer } from './observer.ts'

/** What is read at each scrape. */
export interface Sources {
  /** Requests that have not been answered. */
  inFlight: () => number
  database: () => DatabaseStats | undefined
  hashing: () => { running: number; waiting: number }
  /** Refused calls by limit. */
  throttled: () => Readonly<Record<string, number>>
  cachedTokens: () => number
  streams: () => { open: number; entriesSent: number; wakeUps: number; tooSlow: number }
  logLinesDropped: () => number
  /** `undefined`: the service makes none. */
  backups?: (() => { lastGoodAt: Date | undefined; outcomes: Record<string, number> }) | undefined
}

const requestSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
const statementSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
const lagSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
const lagEveryMs = 100

/** Other methods count as one: each would be a series of its own. */
const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Metrics for Prometheus, by prom-client. Loaded only when the settings ask for them. Those of a worker have its number as a label. */
export function createMetrics(about: { version: string; database: string }, worker?: number) {
  const registry = new Registry()
  if (worker !== undefined) answerSupervisor(registry, worker)
  const registers = [registry]

  const requests = new Counter({
    name: 'http_requests_total',
    help: 'Requests answered, by route pattern and status.',
    labelNames: ['method', 'route', 'status'],
    registers,
  })
  const durations = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'From the arrival of a request to its answer.',
    labelNames: ['method', 'route'],
    buckets: requestSeconds,
    registers,
  })
  const statements = new Histogram({
    name: 'database_statement_duration_seconds',
    help: 'Statements, waiting for a connection included.',
    labelNames: ['operation', 'outcome'],
    buckets: statementSeconds,
    registers,
  })
  const lag = new Histogram({
    name: 'event_loop_lag_seconds',
    help: `How late a timer of ${lagEveryMs} ms is.`,
    buckets: lagSeconds,
    registers,
  })

  const info = new Gauge({
    name: 'todo_api_build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'bun', 'database'],
    registers,
  })
  info.set({ ...about, bun: Bun.version }, 1)

  showProcess(registry)

  let expected = performance.now() + lagEveryMs
  const watchLag = setInterval(() => {
    const now = performance.now()
    lag.observe(Math.max(0, now - expected) / 1000)
    expected = now + lagEveryMs
  }, lagEveryMs).unref()

  const observe: Observer = ({ method, route, status, milliseconds }) => {
    const labels = { method: methods.has(method) ? method : 'other', route }
    requests.inc({ ...labels, status })
    durations.observe(labels, milliseconds / 1000)
    return undefined
  }

  const aroundStatement: AroundStatement = async ({ operation }, _, run) => {
    const start = performance.now()
    let outcome = 'failed'
    try {
      const rows = await run()
      outcome = 'ok'
      return rows
    } finally {
      statements.observe({ operation, outcome }, (performance.now() - start) / 1000)
    }
  }

  return {
    observe,
    aroundStatement,
    /** Adds what is read at each scrape. */
    setSources: (sources: Sources) => showSources(registry, sources),
    /** The Prometheus text format 0.0.4. */
    contentType: registry.contentType,
    text: () => registry.metrics(),
    async stop() {
      clearInterval(watchLag)
    },
  }
}

/** Metrics that are read at each scrape; with a label, one number for each of its values. */
function readAtScrape(registry: Registry) {
  type Read = () => number | Readonly<Record<string, number>> | undefined
  const show =
    (Metric: typeof Gauge | typeof Counter) => (name: string, help: string, read: Read, label?: string) => {
      const collect = () => {
        const value = read()
        if (value === undefined) return
        metric.reset()
        if (typeof value === 'number') metric.inc(value)
        else for (const [key, number] of Object.entries(value)) metric.inc({ [label!]: key }, number)
      }
      const labelNames = label ? [label] : []
      const metric = new Metric({ name, help, labelNames, registers: [registry], collect })
    }
  return { gauge: show(Gauge), counter: show(Counter) }
}

function showSources(registry: Registry, sources: Sources) {
  const { gauge, counter } = readAtScrape(registry)
  const { inFlight, database, hashing, throttled, cachedTokens, streams, logLinesDropped, backups } = sources

  gauge('http_requests_in_flight', 'Requests that have not been answered, without live streams.', inFlight)
  gauge('database_connections', 'Connections by what they are doing.', () => statesOf(database()), 'state')
  gauge('database_connections_max', 'DATABASE_POOL_SIZE.', () => database()?.size)
  gauge('database_statements_waiting', 'Statements that wait for a connection.', () => database()?.waiting)
  gauge('database_up', '0 while the database does not answer.', () => isUp(database()))
  gauge('password_hashes_running', 'Passwords being hashed or checked.', () => hashing().running)
  gauge('password_hashes_waiting', 'Passwords that wait for their turn.', () => hashing().waiting)
  gauge('cached_tokens', 'Access tokens that need no look-up.', cachedTokens)
  counter('throttled_requests_total', 'Calls refused with 429, by limit.', throttled, 'limit')
  gauge('streams_open', 'Live streams.', () => streams().open)
  counter('stream_entries_sent_total', 'Changes sent to streams.', () => streams().entriesSent)
  const wakeUps = 'Times that the streams of a user looked for changes.'
  counter('stream_wake_ups_total', wakeUps, () => streams().wakeUps)
  counter('streams_too_slow_total', 'Streams ended because the client did not read.', () => streams().tooSlow)
  const dropped = 'Lines lost because the reader of the log is too slow or gone.'
  counter('log_lines_dropped_total', dropped, logLinesDropped)

  // Only where backups are made: 0 would be an alarm everywhere else.
  if (!backups) return
  const lastGood = () => (backups().lastGoodAt?.getTime() ?? 0) / 1000
  gauge('backup_last_success_timestamp_seconds', 'When the newest good backup began; 0: none yet.', lastGood)
  counter('backups_total', 'Backups by outcome.', () => backups().outcomes, 'outcome')
}

/** The usual names (prometheus.io/docs/instrumenting/writing_clientlibs). prom-client's own are Node's, and wrong here. */
function showProcess(registry: Registry) {
  const { gauge, counter } = readAtScrape(registry)
  const startedAt = Date.now() / 1000 - process.uptime()
  counter('process_cpu_seconds_total', 'User and system time.', cpuSeconds)
  gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss())
  gauge('process_open_fds', 'Open files and connections.', openFiles)
  gauge('process_start_time_seconds', 'Since 1970.', () => startedAt)
}

/** The metrics of all workers, for the supervisor. Rejected when one of them does not answer within 5 s. */
export function clusterMetrics() {
  const registry = new AggregatorRegistry()
  return { contentType: registry.contentType, text: () => registry.clusterMetrics() }
}

/** A label for each worker: the counters of one that was restarted begin at 0. */
function answerSupervisor(registry: Registry, worker: number) {
  registry.setDefaultLabels({ worker: String(worker) })
  AggregatorRegistry.setRegistries([registry])
  // Its constructor listens for requests of the supervisor.
  new AggregatorRegistry()
}

function statesOf(stats: DatabaseStats | undefined) {
  return stats && { in_use: stats.inUse, idle: stats.idle, opening: stats.opening }
}

const isUp = (stats: DatabaseStats | undefined) => stats && Number(!stats.away)

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

function openFiles(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    // Only Linux has this folder.
    return undefined
  }
}
