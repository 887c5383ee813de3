import { type Config, parseConfig } from '../config.ts'
import type { Driver } from '../db/driver.ts'
import { openDoor } from '../door.ts'
import { createLog, type Log } from '../log.ts'
import type { Supervisor } from '../worker.ts'
import { readEnv } from './settings.ts'

const lastLinesMsMax = 1000

type Service = Awaited<ReturnType<typeof import('../serve.ts').serve>>

/** `todo-api serve`: runs until a signal comes. */
export async function serveCommand() {
  const { env } = readEnv()
  const config = parseConfig(env)
  const write = openOutput()
  const pretty = isTerminal()
  const log = createLog({ level: config.logLevel, pretty, write })
  if (config.workers === 1) return run(config, log)

  const { supervise } = await import('../supervisor.ts')
  const exitCode = await supervise(config, env, { log, pretty, write })
  await writeRest(log)
  process.exit(exitCode)
}

/** One of several processes; `serve` has started it. */
export async function workerCommand() {
  const { meetSupervisor } = await import('../worker.ts')
  const supervisor = await meetSupervisor()
  const { env, pretty, worker } = supervisor
  const config = parseConfig(env)
  await run(
    config,
    createLog({ level: config.logLevel, pretty, write: openOutput(), about: { worker } }),
    supervisor,
  )
}

async function run(config: Config, log: Log, supervisor?: Supervisor) {
  // The port first, the rest of the program after: so a probe that comes early is answered.
  const door = openDoor(config, log)

  let service: Service | undefined
  let commands: { stop(): Promise<void> } | undefined
  let signals = 0
  const end = async (reason: string, delaySeconds?: number) => {
    if (++signals > 1) {
      // Whoever asks twice does not want to wait. But a worker hears one signal twice: from its supervisor, and from a
      // terminal or systemd, which tell every process.
      if (!supervisor) process.exit(1)
      return
    }
    await commands?.stop()
    await service?.stop(reason, delaySeconds)
    await writeRest(log)
    process.exit(0)
  }
  // Before the long part of the start: as process 1 of a container, nobody else ends us.
  process.on('SIGTERM', signal => end(signal))
  process.on('SIGINT', signal => end(signal))
  // The next supervisor may be waiting for the port.
  supervisor?.onGone(() => end('the supervisor is gone', 0))

  await loadInTurns()
  const { serve } = await import('../serve.ts')
  service = await serve(config, log, door, supervisor)
  const { url, driver } = service
  if (supervisor) supervisor.report({ kind: 'listening' })
  else log.info('listening', { url, docs: `${url}docs`, database: driver.kind })
  commands = await answerOtherCommands(config, driver, log)
  // A supervisor starts the service again, on whatever is in the folder then.
  driver.lost?.then(async reason => {
    log.error(reason, { data_dir: config.dataDir })
    await service!.stop(reason, 0)
    await writeRest(log)
    process.exit(1)
  })

  try {
    await service.migrated
    supervisor?.report({ kind: 'migrated' })
  } catch (error) {
    await service.stop('the database cannot be brought up to date')
    await writeRest(log)
    throw error
  }
}

/** Loads what takes longest, with a turn of the event loop in between for whoever is at the door. */
async function loadInTurns() {
  const parts = [
    () => import('elysia'),
    () => import('../db/client.ts'),
    () => import('../modules/tasks/service.ts'),
    () => import('../app.ts'),
  ]
  for (const load of parts) {
    await Bun.sleep(0)
    await load()
  }
  await Bun.sleep(0)
}

/** The embedded database has one process: other commands come to the service with what they want of it. */
async function answerOtherCommands({ database }: Config, driver: Driver, log: Log) {
  if (database.kind !== 'embedded') return undefined
  const { answerCommands } = await import('./control.ts')
  return answerCommands(database.dataDir, driver, log)
}

/** The last lines, but a reader who takes none keeps nobody from ending. */
const writeRest = (log: Log) => Promise.race([log.flush(), Bun.sleep(lastLinesMsMax)])

const isTerminal = () => process.stdout.isTTY === true

function openOutput() {
  const stdout = Bun.stdout.writer()
  return async (lines: string | Uint8Array) => {
    try {
      stdout.write(lines)
      await stdout.flush()
    } catch {
      // Whoever read the log has gone: the service goes on without one.
    }
  }
}
