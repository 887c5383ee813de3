import { existsSync, readFileSync } from 'node:fs'
import type { Config } from '../config/config.ts'
import { parseDatabaseUrl } from '../config/database-url.ts'
import type { Supervisor } from '../server/cluster/worker-channel.ts'
import { listen } from '../server/listener.ts'
import { onStopSignal } from '../server/stop-signal.ts'
import { createLog, errorFields, type Log, type LogOptions } from '../telemetry/log.ts'
import { readConfig } from './read-config.ts'
import { print, UsageError } from './terminal.ts'

const isTerminal = () => process.stdout.isTTY === true

const lastLinesMsMax = 1000

/** PIPE_BUF: writes up to this size are not mixed with those of other processes. */
const pipeBufferBytes = 4096

type Service = Awaited<ReturnType<typeof import('../server/start.ts').serve>>

/** `todo-api serve`: runs until a signal comes. */
export async function serveCommand() {
  const config = readConfig()
  const log = openLog(config, config.workers === 1 ? {} : { batchBytesMax: pipeBufferBytes })
  for (const names of config.misspelled) log.warn('no such setting', names)
  warnOfIgnored(config, log)
  warnOfFewFiles(config, log)
  if (config.workers === 1) return run(config, log)

  const { supervise } = await import('../server/cluster/supervisor.ts')
  const exitCode = await supervise(config, log)
  await writeLastLines(log)
  process.exit(exitCode)
}

/** Parameters of the address that are for other programs. */
function warnOfIgnored({ database }: Config, log: Log) {
  if (database.kind !== 'postgres') return
  const { ignored } = parseDatabaseUrl(database.url)
  if (ignored.length > 0)
    log.warn('parameters of DATABASE_URL are ignored', { parameters: ignored.join(', ') })
}

/** For the database, and for requests beside the streams. */
const filesMin = 300

/** Where no more files can be opened, connections wait and the embedded database refuses writes. */
function warnOfFewFiles({ streamsMax }: Config, log: Log) {
  const limits = '/proc/self/limits'
  if (!existsSync(limits)) return
  const [, files] = readFileSync(limits, 'utf8').match(/^Max open files +(\d+)/m) ?? []
  if (Number(files) < streamsMax + filesMin)
    log.warn('few files may be open: raise `ulimit -n`, or lower STREAMS_MAX', { files: Number(files) })
}

/** A worker process, started by `serve`. */
export async function workerCommand() {
  if (!process.send) throw new UsageError('`worker` is started by `serve`')
  const { connectToSupervisor } = await import('../server/cluster/worker-channel.ts')
  const supervisor = await connectToSupervisor()
  const { config, worker } = supervisor
  await run(config, openLog(config, { about: { worker }, batchBytesMax: pipeBufferBytes }), supervisor)
}

async function run(config: Config, log: Log, supervisor?: Supervisor) {
  // A library may reject where nothing catches it, as postgres.js does. Bun would print the source around it.
  process.on('unhandledRejection', error => log.error('unhandled rejection', errorFields(error)))
  // The port before the rest of the program, so that an early probe is answered.
  const listener = listen(config, log)

  let service: Service | undefined
  let commands: { stop(): Promise<void> } | undefined
  let isStopping = false
  const stop = async (reason: string, delaySeconds?: number, exitCode = 0) => {
    if (isStopping) return
    isStopping = true
    await commands?.stop()
    await service?.stop(reason, delaySeconds)
    await writeLastLines(log)
    process.exit(exitCode)
  }
  // Before the slow part of the start: process 1 of a container ignores signals without a handler. A worker receives each
  // signal twice, from its supervisor and from the terminal or systemd, so the second one means nothing.
  onStopSignal(stop, () => supervisor || process.exit(1))
  // The next supervisor may wait for the port.
  if (supervisor) process.on('disconnect', () => stop('the supervisor is gone', 0))

  const { serve } = await import('../server/start.ts')
  service = await serve(config, log, listener, supervisor)
  const { url, driver } = service
  if (isTerminal() && (supervisor?.worker ?? 1) === 1) {
    const { welcome } = await import('./welcome.ts')
    await print(welcome(config, url))
  } else
    log.info('listening', {
      url,
      docs: `${url}docs`,
      database: driver.kind,
      pid: supervisor && process.pid,
    })
  if (config.database.kind === 'embedded') {
    // It belongs to one process: other commands go through the service.
    const { answerCommands } = await import('./control-socket.ts')
    commands = answerCommands(config.dataDir, driver, log)
  }
  // Exits, so that systemd or the container runtime starts the service again.
  driver.lost?.then(reason => {
    log.error(reason, { data_dir: config.dataDir })
    return stop(reason, 0, 1)
  })

  try {
    await service.migrated
    supervisor?.send('migrated')
  } catch (error) {
    await service.stop('the database cannot be brought up to date', 0)
    await writeLastLines(log)
    throw error
  }
}

/** A log reader that has stopped reading must not keep the process from ending. */
const writeLastLines = (log: Log) => Promise.race([log.flush(), Bun.sleep(lastLinesMsMax)])

const openLog = ({ logLevel: level }: Config, options?: Partial<LogOptions>) =>
  createLog({ level, pretty: isTerminal, write: print, ...options })
