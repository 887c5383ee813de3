import { type Config, parseConfig } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import type { Supervisor } from '../server/cluster/worker-channel.ts'
import { listen } from '../server/listener.ts'
import { onStopSignal } from '../server/stop-signal.ts'
import { createLog, errorFields, type Log, type LogOptions } from '../telemetry/log.ts'
import { readEnv } from './env.ts'
import { print } from './terminal.ts'

const lastLinesMsMax = 1000

/** Writes of this size to a pipe are never mixed with those of other processes. */
const pipeBufferBytes = 4096

type Service = Awaited<ReturnType<typeof import('../server/start.ts').serve>>

/** `todo-api serve`: runs until a signal comes. */
export async function serveCommand() {
  const { env } = readEnv()
  const config = parseConfig(env)
  if (config.workers === 1) return run(config, openLog(config))

  const log = openLog(config, { batchBytesMax: pipeBufferBytes })
  const { supervise } = await import('../server/cluster/supervisor.ts')
  const exitCode = await supervise(config, env, log)
  await writeLastLines(log)
  process.exit(exitCode)
}

/** One of several processes; `serve` has started it. */
export async function workerCommand() {
  const { connectToSupervisor } = await import('../server/cluster/worker-channel.ts')
  const supervisor = await connectToSupervisor()
  const { env, worker } = supervisor
  const config = parseConfig(env)
  await run(config, openLog(config, { about: { worker }, batchBytesMax: pipeBufferBytes }), supervisor)
}

async function run(config: Config, log: Log, supervisor?: Supervisor) {
  // postgres.js throws where nothing catches it, for example on a malformed challenge inside TLS. Bun would print the
  // source around it; the connection itself runs into its time limit.
  process.on('unhandledRejection', error => log.error('unhandled rejection', errorFields(error)))
  // The port first, the rest of the program after: so a probe that comes early is answered.
  const listener = listen(config, log)

  let service: Service | undefined
  let commands: { stop(): Promise<void> } | undefined
  let isStopping = false
  const stop = async (reason: string, delaySeconds?: number) => {
    if (isStopping) return
    isStopping = true
    await commands?.stop()
    await service?.stop(reason, delaySeconds)
    await writeLastLines(log)
    process.exit(0)
  }
  // Before the long part of the start: process 1 of a container has no other way to end. A worker receives a signal
  // twice, from its supervisor and from a terminal or systemd, which signal every process: so it never hurries.
  onStopSignal(stop, () => supervisor || process.exit(1))
  // The next supervisor may be waiting for the port.
  if (supervisor) process.on('disconnect', () => stop('the supervisor is gone', 0))

  await loadInTurns()
  const { serve } = await import('../server/start.ts')
  service = await serve(config, log, listener, supervisor)
  const { url, driver } = service
  log.info('listening', {
    url,
    docs: `${url}docs`,
    database: driver.kind,
    pid: supervisor && process.pid,
  })
  commands = await answerOtherCommands(config, driver, log)
  // A supervisor starts the service again, on whatever is in the folder then.
  driver.lost?.then(async reason => {
    log.error(reason, { data_dir: config.dataDir })
    await service!.stop(reason, 0)
    await writeLastLines(log)
    process.exit(1)
  })

  try {
    await service.migrated
    supervisor?.send('migrated')
  } catch (error) {
    await service.stop('the database cannot be brought up to date')
    await writeLastLines(log)
    throw error
  }
}

/** Loads what takes longest, with a turn of the event loop in between for early requests. */
async function loadInTurns() {
  const parts = [
    () => import('elysia'),
    () => import('../db/drizzle.ts'),
    () => import('../modules/tasks/service.ts'),
    () => import('../server/app.ts'),
  ]
  for (const load of parts) {
    await Bun.sleep(0)
    await load()
  }
  await Bun.sleep(0)
}

/** The embedded database has one process: other commands ask the service. */
async function answerOtherCommands({ database }: Config, driver: Driver, log: Log) {
  if (database.kind !== 'embedded') return undefined
  const { answerCommands } = await import('./control.ts')
  return answerCommands(database.dataDir, driver, log)
}

/** A log whose reader takes no lines must not keep the process from ending. */
const writeLastLines = (log: Log) => Promise.race([log.flush(), Bun.sleep(lastLinesMsMax)])

const openLog = ({ logLevel: level }: Config, options?: Partial<LogOptions>) =>
  createLog({ level, pretty: process.stdout.isTTY === true, write: print, ...options })
