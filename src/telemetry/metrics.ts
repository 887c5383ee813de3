import { readdirSync } from 'node:fs'
import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { AroundStatement, DatabaseStats, Observer } from './observer.ts'

/** What is looked up when the metrics are read. */
export interface Sources {
  /** Requests that have not been answered. */
  inFlight: () => number
  database: () => DatabaseStats | undefined
  hashing: () => { running: number; waiting: number }
  /** Refused calls by limit. */
  throttled: () => Readonly<Record<string, number>>
  rememberedTokens: () => number
  logLinesDropped: () => number
}

export type Metrics = ReturnType<typeof createMetrics>

const requestSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
const statementSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
const lagSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
const lagEveryMs = 100

/** A client may invent methods; each would be a series of its own. */
const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Counts for Prometheus, by prom-client. Loaded only when they are asked for. A worker's have its number as a label. */
export function createMetrics(about: { version: string; database: string }, worker?: number) {
  const registry = new Registry()
  if (worker !== undefined) answerSupervisor(registry, worker)
  const registers = [registry]
  let sources: Sources | undefined

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

  /** A value that is looked up when the metrics are read. */
  function gauge(name: string, help: string, read: (from: Sources) => number | undefined) {
    const collect = () => {
      const value = sources && read(sources)
      if (value !== undefined) metric.set(value)
    }
    const metric = new Gauge({ name, help, registers, collect })
  }

  const info = new Gauge({
    name: 'todo_api_build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'bun', 'database'],
    registers,
  })
  info.set({ ...about, bun: Bun.version }, 1)

  gauge('http_requests_in_flight', 'Requests that have not been answered.', from => from.inFlight())
  const connections = new Gauge({
    name: 'database_connections',
    help: 'Connections by what they are doing.',
    labelNames: ['state'],
    registers,
    collect() {
      const stats = sources?.database()
      if (!stats) return
      connections.set({ state: 'in_use' }, stats.inUse)
      connections.set({ state: 'idle' }, stats.idle)
      connections.set({ state: 'opening' }, stats.opening)
    },
  })
  gauge('database_connections_max', 'DATABASE_POOL_SIZE.', from => from.database()?.size)
  gauge(
    'database_statements_waiting',
    'Statements that wait for a connection.',
    from => from.database()?.waiting,
  )
  const isUp = (from: Sources) => {
    const stats = from.database()
    return stats && Number(!stats.away)
  }
  gauge('database_up', '0 while the database does not answer.', isUp)
  gauge('password_hashes_running', 'Passwords being hashed or checked.', from => from.hashing().running)
  gauge('password_hashes_waiting', 'Passwords that wait for their turn.', from => from.hashing().waiting)
  gauge('remembered_tokens', 'Access tokens that need no look-up.', from => from.rememberedTokens())
  const throttled = new Counter({
    name: 'throttled_requests_total',
    help: 'Calls refused with 429, by limit.',
    labelNames: ['limit'],
    registers,
    collect() {
      throttled.reset()
      for (const [limit, count] of Object.entries(sources?.throttled() ?? {})) throttled.inc({ limit }, count)
    },
  })
  const dropped = new Counter({
    name: 'log_lines_dropped_total',
    help: 'Lines that were lost because the reader of the log is too slow or gone.',
    registers,
    collect() {
      dropped.reset()
      dropped.inc(sources?.logLinesDropped() ?? 0)
    },
  })
  addProcessMetrics(registers)

  const watchLag = setInterval(() => {
    const now = performance.now()
    lag.observe(Math.max(0, now - expected) / 1000)
    expected = now + lagEveryMs
  }, lagEveryMs).unref()
  let expected = performance.now() + lagEveryMs

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
    /** From now on these are asked. */
    watch(from: Sources) {
      sources = from
    },
    /** The Prometheus text format 0.0.4. */
    contentType: registry.contentType,
    text: () => registry.metrics(),
    async stop() {
      clearInterval(watchLag)
    },
  }
}

/** The metrics of all workers, for the process that runs them. Refused when one of them does not answer in 5 s. */
export function clusterMetrics() {
  const registry = new AggregatorRegistry()
  return { contentType: registry.contentType, text: () => registry.clusterMetrics() }
}

/** The label keeps the workers' numbers apart: a counter of one that was started again begins at 0. */
function answerSupervisor(registry: Registry, worker: number) {
  registry.setDefaultLabels({ worker: String(worker) })
  AggregatorRegistry.setRegistries([registry])
  // Its constructor listens for the supervisor's question.
  new AggregatorRegistry()
}

/** The usual names (prometheus.io/docs/instrumenting/writing_clientlibs). prom-client's own are Node's, and wrong here. */
function addProcessMetrics(registers: Registry[]) {
  const cpu = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system time.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage()
      cpu.reset()
      cpu.inc((user + system) / 1e6)
    },
  })
  const memory = new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory.',
    registers,
    collect() {
      memory.set(process.memoryUsage.rss())
    },
  })
  const files = new Gauge({
    name: 'process_open_fds',
    help: 'Open files and connections.',
    registers,
    collect() {
      try {
        files.set(readdirSync('/proc/self/fd').length)
      } catch {
        // Only Linux has it.
      }
    },
  })
  const start = new Gauge({
    name: 'process_start_time_seconds',
    help: 'Since 1970.',
    registers,
  })
  start.set(Date.now() / 1000 - process.uptime())
}
