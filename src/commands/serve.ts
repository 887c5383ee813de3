import type { Config } from '../config.ts'
import type { Driver } from '../db/driver.ts'
import { openDoor } from '../door.ts'
import { createLog, type Log } from '../log.ts'
import { readConfig } from './settings.ts'

type Service = Awaited<ReturnType<typeof import('../serve.ts').serve>>

/** `todo-api serve`: runs until a signal comes. */
export async function serveCommand() {
  const config = readConfig()
  const log = logTo(config)
  // The port first, the rest of the program after: so a probe that comes early is answered.
  const door = openDoor(config, log)

  let service: Service | undefined
  let commands: { stop(): Promise<void> } | undefined
  let signals = 0
  const onSignal = async (signal: string) => {
    // Whoever asks twice does not want to wait.
    if (++signals > 1) process.exit(1)
    await commands?.stop()
    await service?.stop(signal)
    log.flush()
    process.exit(0)
  }
  // Before the long part of the start: as process 1 of a container, nobody else ends us.
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)

  await loadInTurns()
  const { serve } = await import('../serve.ts')
  service = await serve(config, log, door)
  commands = await answerOtherCommands(config, service.driver, log)

  try {
    await service.migrated
  } catch (error) {
    await service.stop('the database cannot be brought up to date')
    log.flush()
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

function logTo({ logLevel }: Config): Log {
  const stdout = Bun.stdout.writer()
  return createLog({
    level: logLevel,
    pretty: process.stdout.isTTY === true,
    async write(lines) {
      try {
        stdout.write(lines)
        await stdout.flush()
      } catch {
        // Whoever read the log has gone: the service goes on without one.
      }
    },
  })
}
