import type { Config, Env } from './config.ts'
import type { Log } from './log.ts'
import type { Counts } from './metrics.ts'
import { loadSecretKey } from './secret-key.ts'
import type { Order, Report, Start } from './worker.ts'

export interface Output {
  log: Log
  /** Whether people read it at a terminal. */
  pretty: boolean
  write(lines: string | Uint8Array): Promise<void>
}

/** Milliseconds before a worker is started again: at first, and at most when it ends soon each time. */
const pauseMin = 100
const pauseMax = 10_000
const soonMs = 10_000

/** Seconds that a worker may take to stop, beside SHUTDOWN_DELAY_SECONDS. Its own limit is shorter. */
const stopSecondsMax = 15

/** How long whoever reads the log may take for the last lines of a worker. */
const lastLinesMsMax = 1000

/**
 * How often each worker is asked for a sign of life, and how many such questions it may leave open: then it hangs, and the
 * kernel goes on giving it connections that nobody answers. Questions, not seconds: a machine that slept has asked none.
 */
const pingEveryMs = 5000
const unansweredMax = 3

/** How long a worker that is busy may take to say what it has counted; then what it said last has to do. */
const countMsMax = 1000

/** The file that runs, even when a new version has been put in its place: all workers are of one version. */
const program = Bun.isStandaloneExecutable ? ['/proc/self/exe'] : [process.execPath, Bun.main]

/**
 * Runs WORKERS processes that share one port, and starts another in the place of one that ends. The first one alone
 * brings the database up to date: so what is wrong is said once, and its exit code is ours. Gives the exit code.
 */
export async function supervise(config: Config, env: Env, { log, pretty, write }: Output): Promise<number> {
  const { url, port } = claimPort(config)
  const settings = settingsAsRead(config, env, port)
  const totals = config.metrics && (await import('./metrics.ts')).createTotals()
  const living = new Map<number, Worker>()
  const migrated = Promise.withResolvers<void>()
  const stopped = Promise.withResolvers<void>()
  let isUp = false
  let isStopping = false
  let exitCode = 0

  function stop(signal: NodeJS.Signals) {
    // Whoever asks twice does not want to wait.
    if (isStopping) {
      for (const worker of living.values()) worker.kill('SIGKILL')
      process.exit(1)
    }
    isStopping = true
    stopped.resolve()
    for (const worker of living.values()) worker.kill(signal)
    setTimeout(killTheRest, (config.shutdownDelaySeconds + stopSecondsMax) * 1000).unref()
  }

  function killTheRest() {
    log.error('workers do not stop', { workers: [...living.keys()] })
    for (const worker of living.values()) worker.kill('SIGKILL')
    exitCode = 1
  }

  /** One worker after the other under one number, until we stop. */
  async function keepRunning(number: number): Promise<void> {
    for (let pause = pauseMin; !isStopping; pause = Math.min(2 * pause, pauseMax)) {
      const began = performance.now()
      const worker = startWorker({ worker: number, pretty, env: settings }, write, hear)
      living.set(number, worker)
      const { pid } = worker
      const { code, signal } = await worker.ended()
      living.delete(number)
      totals?.keep(worker.lastCounts())
      if (isStopping) return
      if (!isUp) {
        // What was wrong stands on stderr, unless a signal left it no time to speak.
        if (signal) log.error('worker ended', { worker: number, pid, signal })
        exitCode = code ?? 1
        isStopping = true
        return
      }
      if (performance.now() - began > soonMs) pause = pauseMin
      log.warn('worker ended', { worker: number, pid, exit_code: code, signal, again_in_ms: pause })
      await Promise.race([Bun.sleep(pause), stopped.promise])
    }
  }

  async function hear(report: Report, worker: Worker) {
    if (report.kind === 'listening') {
      const { kind: database } = config.database
      if (!isUp) log.info('listening', { url, docs: `${url}docs`, database, workers: config.workers })
      log.info('worker started', { worker: worker.number, pid: worker.pid })
    } else if (report.kind === 'migrated') {
      isUp = true
      migrated.resolve()
    } else if (report.kind === 'metrics') {
      worker.tell({ kind: 'metrics', id: report.id, text: await readMetrics() })
    }
  }

  async function readMetrics(): Promise<string> {
    const answers = Promise.all([...living.values()].map(worker => worker.count()))
    await Promise.race([answers, Bun.sleep(countMsMax)])
    return totals!.text(() => [...living.values()].map(worker => worker.lastCounts()))
  }

  /** A port of their own is ours: behind a worker's there would be one worker's numbers. */
  async function openMetrics() {
    if (!totals || config.metrics?.port === undefined) return undefined
    const { serveMetrics } = await import('./http/metrics.ts')
    const { contentType } = totals
    const { port } = config.metrics
    const server = serveMetrics({ contentType, text: readMetrics }, { ...config.metrics, port })
    log.info('metrics', { url: `${server.url}metrics` })
    return server
  }

  /** Whoever hangs is killed, and another starts in its place. */
  function watch() {
    for (const worker of living.values()) {
      if (worker.ping() <= unansweredMax) continue
      log.error('worker hangs', { worker: worker.number, pid: worker.pid })
      worker.kill('SIGKILL')
    }
  }

  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  setInterval(watch, pingEveryMs).unref()
  const server = await openMetrics()
  const first = keepRunning(1)
  await Promise.race([first, migrated.promise])
  const others = Array.from({ length: config.workers - 1 }, (_, i) => keepRunning(i + 2))
  await Promise.all([first, ...others])
  await server?.stop(true)
  return exitCode
}

/**
 * Sees that nobody has the port, and keeps other supervisors from it as long as we run: their workers could share it
 * with ours otherwise. Throws when the port is in use.
 */
function claimPort({ host, port }: Config): { url: string; port: number } {
  // A name that the kernel knows as long as we live, in the network that the port belongs to. It comes first: a look at
  // the port would keep the workers of whoever has the name from it. A free port (0) is nobody else's anyway.
  const unix = `\0todo-api ${host}:${port}`
  if (port !== 0) Bun.listen({ unix, socket: { open: socket => void socket.end(), data() {} } })
  const look = Bun.serve({ hostname: host, port, reusePort: false, fetch: () => new Response() })
  const found = { url: look.url.href, port: look.port! }
  void look.stop(true)
  return found
}

/** The settings with what was read from files, and made up, in them: a worker that comes later has the same ones. */
function settingsAsRead({ database, secretKey, dataDir, metrics }: Config, env: Env, port: number): Env {
  return {
    ...env,
    PORT: String(port),
    DATABASE_URL: database.kind === 'postgres' ? database.url : undefined,
    DATABASE_URL_FILE: undefined,
    SECRET_KEY: secretKey ?? loadSecretKey(dataDir),
    SECRET_KEY_FILE: undefined,
    METRICS_TOKEN: metrics?.token,
    METRICS_TOKEN_FILE: undefined,
  }
}

type Worker = ReturnType<typeof startWorker>

/** A process that runs as one of the workers. */
function startWorker(
  start: Start,
  write: Output['write'],
  hear: (report: Report, worker: Worker) => Promise<void>,
) {
  let counts: Counts = []
  let unanswered = 0
  const waiting: (() => void)[] = []
  const child = Bun.spawn([...program, 'worker'], {
    argv0: 'todo-api',
    stdio: ['ignore', 'pipe', 'inherit'],
    ipc(report: Report) {
      unanswered = 0
      if (report.kind !== 'counts') return void hear(report, worker)
      counts = report.counts
      waiting.shift()?.()
    },
  })
  const worker = {
    number: start.worker,
    pid: child.pid,
    tell(order: Order) {
      try {
        child.send(order)
      } catch {
        // It has ended, and somebody waits for just that.
      }
    },
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /** Asks for a sign of life; gives how many such questions are open. */
    ping() {
      worker.tell({ kind: 'ping' })
      return ++unanswered
    },
    /** Asks what it has counted; does not resolve when it ends before it answers. */
    count: () =>
      new Promise<void>(resolve => {
        waiting.push(resolve)
        worker.tell({ kind: 'count' })
      }),
    /** What it said when it was last asked. */
    lastCounts: () => counts,
    /** Its last lines have been written by then, unless nobody takes them. */
    async ended() {
      await child.exited
      await Promise.race([lines, Bun.sleep(lastLinesMsMax)])
      return { code: child.exitCode, signal: child.signalCode }
    },
  }
  const lines = passLines(child.stdout, write)
  worker.tell({ kind: 'start', ...start })
  return worker
}

/**
 * Passes on what a worker writes, in whole lines of any length: of what several processes write into one pipe, more
 * than 4 KiB at a time gets mixed. The end of a line that a killed worker had begun never comes, and is left out.
 */
export async function passLines(from: ReadableStream<Uint8Array>, write: Output['write']): Promise<void> {
  let begun: Uint8Array[] = []
  for await (const chunk of from as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>) {
    const end = chunk.lastIndexOf(0x0a) + 1
    if (end > 0) {
      const lines = Buffer.concat([...begun, chunk.subarray(0, end)])
      begun = []
      await write(lines)
    }
    if (end < chunk.length) begun.push(chunk.subarray(end))
  }
}
