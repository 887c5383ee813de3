import cluster from 'node:cluster'
import { once } from 'node:events'
import type { Config } from '../../config/config.ts'
import { loadSecretKey } from '../../config/secret-key.ts'
import type { Log } from '../../telemetry/log.ts'
import { claimPort } from '../listener.ts'
import { runningProgram } from '../running-program.ts'
import { onStopSignal } from '../stop-signal.ts'
import type { SupervisorMessage, WorkerMessage } from './worker-channel.ts'

/** A worker that ends within `steadyMs` is started again after a pause that doubles each time. */
export const supervisorLimits = {
  pauseMs: 100,
  pauseMsMax: 10_000,
  steadyMs: 10_000,
  pingEveryMs: 5000,
  /** A worker hangs when it has not answered this number of pings. Not seconds: a machine that was asleep sent no pings. */
  unansweredMax: 3,
  /** How long a worker may take to stop, after SHUTDOWN_DELAY_SECONDS. */
  stopMs: 15_000,
}

/**
 * Runs WORKERS processes that share one port, and replaces those that end or hang. The first worker applies migrations
 * before the others start, so that a failure is reported once. Resolves to the exit code: that of the first worker if it
 * fails to start.
 */
export async function supervise(given: Config, log: Log, limits = supervisorLimits): Promise<number> {
  // A worker that starts later has the same settings, whatever has become of files with secrets.
  const config = { ...given, port: claimPort(given) }
  config.secretKey ??= loadSecretKey(config.dataDir)
  const metrics = config.metrics && (await import('../../telemetry/metrics.ts')).clusterMetrics()
  const migrated = Promise.withResolvers<true>()
  const stopped = Promise.withResolvers<void>()
  let isUp = false
  let exitCode: number | undefined

  function stopAll(signal: NodeJS.Signals, code = 0) {
    exitCode = code
    stopped.resolve()
    for (const worker of Object.values(cluster.workers!)) worker!.process.kill(signal)
    // One that hangs does not stop.
    const killAll = () => stopAll('SIGKILL', code)
    if (signal !== 'SIGKILL') setTimeout(killAll, config.shutdownDelaySeconds * 1000 + limits.stopMs).unref()
  }

  /** Runs a worker, and after it another one of the same number, until the supervisor stops. */
  async function keepRunning(number: number): Promise<void> {
    for (let pause = limits.pauseMs; exitCode === undefined; pause = Math.min(2 * pause, limits.pauseMsMax)) {
      const began = performance.now()
      const worker = cluster.fork()
      const about = { worker: number, pid: worker.process.pid }
      const send = (message: SupervisorMessage) => worker.isConnected() && worker.send(message)
      let unanswered = 0
      worker.on('message', async ({ kind }: WorkerMessage) => {
        unanswered = 0
        if (kind === 'hello') send({ kind: 'start', worker: number, config })
        else if (kind === 'migrated') migrated.resolve(true)
        else if (kind === 'metrics')
          send({ kind: 'metrics', text: await metrics?.text().catch(() => undefined) })
      })
      const pinging = setInterval(() => {
        if (unanswered++ < limits.unansweredMax) return void send({ kind: 'ping' })
        log.error('worker hangs', about)
        worker.process.kill('SIGKILL')
      }, limits.pingEveryMs)
      const [code, signal] = await once(worker, 'exit')
      clearInterval(pinging)
      if (exitCode !== undefined) return
      if (performance.now() - began > limits.steadyMs) pause = limits.pauseMs
      log.warn('worker ended', { ...about, exit_code: code, signal, again_in_ms: isUp ? pause : undefined })
      if (!isUp) return stopAll('SIGTERM', code ?? 1)
      await Promise.race([Bun.sleep(pause), stopped.promise])
    }
  }

  onStopSignal(stopAll, () => stopAll('SIGKILL', 1))
  const [program, ...args] = [...runningProgram, 'worker']
  process.execPath = program!
  cluster.setupPrimary({ exec: args[0]!, args: args.slice(1) })
  if (metrics) (await import('../../http/metrics-endpoint.ts')).serveMetrics(metrics, config.metrics!, log)
  const first = keepRunning(1)
  isUp = await Promise.race([first.then(() => false), migrated.promise])
  const others = Array.from({ length: config.workers - 1 }, (_, i) => keepRunning(i + 2))
  await Promise.all([first, ...others])
  return exitCode ?? 1
}
