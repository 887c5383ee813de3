import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { clusterName, lockFile } from '../config/data-dir.ts'
import type { Driver, QueryOptions } from '../db/driver.ts'
import { createDb } from '../db/drizzle.ts'
import { brokenConstraint, databaseError, unavailable } from '../db/pg-error.ts'
import { AppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'
import { type CommandDriver, operationsOn } from './operations.ts'

/**
 * The embedded database belongs to one process. While that is the service, commands send it their statements over a
 * socket in DATA_DIR, which only the owner of the files can open.
 */
const socketName = 'control'
const copyName = /^copy-[0-9a-f-]{36}$/
/** The file of a copy that its command has locked: the kernel unlocks it when the command ends, however it does. */
const ownerName = 'owner'
/** A copy of this age is removed even if its owner is locked. */
const abandonedAfterMs = 24 * 60 * 60 * 1000

/** A folder in DATA_DIR for a copy of the database, in `cluster` there. */
export const newCopy = (dataDir: string) => join(dataDir, `copy-${crypto.randomUUID()}`)

/**
 * Locks a copy, so that no service removes it until the lock is closed. Its folder is there already: the service has made
 * it, which may be another user than the command's.
 */
export const claimCopy = (path: string) => lockFile(path, ownerName)

/**
 * Answers commands on behalf of the embedded database. Where no socket can be made (a path too long, a file system
 * without sockets) the service runs without it and logs a warning.
 */
export function answerCommands(dataDir: string, driver: Driver, log: Log): { stop(): Promise<void> } {
  removeAbandonedCopies(dataDir, log)
  const unix = join(dataDir, socketName)
  // A mode set after the socket is made would be too late.
  const mask = process.umask(0o177)
  try {
    // Left by a process that was killed; the folder's lock is ours.
    rmSync(unix, { force: true })
    const server = Bun.serve({
      unix,
      async fetch(request, server) {
        // A copy may take longer than Bun's idle timeout.
        server.timeout(request, 0)
        try {
          return Response.json({ result: await answer(request, dataDir, driver, log) })
        } catch (error) {
          return Response.json({ failure: describe(error) })
        }
      },
    })
    return { stop: () => server.stop(true) }
  } catch (error) {
    log.warn('commands cannot reach this service', { socket: unix, ...errorFields(error) })
    return { async stop() {} }
  } finally {
    process.umask(mask)
  }
}

async function answer(request: Request, dataDir: string, driver: Driver, log: Log): Promise<unknown> {
  const name = new URL(request.url).pathname.slice(1)
  const calls = callsOn(driver, dataDir, request.signal, log)
  const call: (...values: never[]) => unknown = calls[name as keyof Calls]
  return call(...((await request.json()) as never[]))
}

/** What commands may ask of the service, by name. */
const callsOn = (driver: Driver, dataDir: string, signal: AbortSignal, log: Log) => ({
  async greet() {},
  async query(text: string, values: readonly unknown[], options: QueryOptions) {
    const rows = await driver.query(text, values, options)
    return { rows, columns: rows.columns }
  },
  ...operationsOn(createDb(driver)),
  /** `name` is that of a folder, from `newCopy`. */
  async copy(name: string) {
    if (!copyName.test(name)) throw new Error('not the name of a copy')
    removeAbandonedCopies(dataDir, log)
    try {
      await driver.copyTo!(join(dataDir, name, clusterName))
    } finally {
      // The command has ended, and could not remove what was still being written.
      if (signal.aborted) rmSync(join(dataDir, name), { recursive: true, force: true })
    }
  },
})

type Calls = ReturnType<typeof callsOn>
type Results = { [Name in keyof Calls]: Awaited<ReturnType<Calls[Name]>> }

interface Failure {
  message: string
  code?: string | undefined
  constraint?: string | undefined
}

function describe(error: unknown): Failure {
  const code = error instanceof AppError ? error.code : databaseError(error)?.code
  // Why the database is unavailable: the command says that.
  const { message } =
    error instanceof AppError && error.cause instanceof Error ? error.cause : (error as Error)
  return { message, code, constraint: brokenConstraint(error) }
}

/** The database of the service that runs on this folder; `undefined` without one. */
export async function connectToService(dataDir: string): Promise<CommandDriver | undefined> {
  const unix = join(dataDir, socketName)
  async function call<Name extends keyof Calls>(
    name: Name,
    ...values: Parameters<Calls[Name]>
  ): Promise<Results[Name]> {
    const request = { unix, method: 'POST', body: JSON.stringify(values), timeout: false }
    const response = await fetch(`http://todo-api/${name}`, request as RequestInit)
    const { result, failure } = (await response.json()) as { result: Results[Name]; failure?: Failure }
    if (failure?.code === 'unavailable') throw unavailable(failure.message)
    if (failure) throw Object.assign(new Error(failure.message), failure)
    return result
  }

  try {
    await call('greet')
  } catch {
    return undefined
  }
  return {
    kind: 'embedded',
    async query(text, values, options = {}) {
      const { rows, columns } = await call('query', text, values, options)
      return Object.assign(rows, { columns })
    },
    addRows: rows => call('addRows', rows),
    change: (userId, to) => call('change', userId, to),
    createToken: (userId, input) => call('createToken', userId, input),
    erase: userId => call('erase', userId),
    copyTo: folder => call('copy', basename(dirname(folder))),
    transaction: refuse,
    dedicatedConnection: refuse,
    async close() {},
    async [Symbol.asyncDispose]() {},
  }
}

async function refuse(): Promise<never> {
  throw new Error('a service runs on this database; stop it first')
}

/** A command that was killed could not remove its copies. */
function removeAbandonedCopies(dataDir: string, log: Log): void {
  for (const name of readdirSync(dataDir).filter(name => copyName.test(name))) {
    const path = join(dataDir, name)
    try {
      if (isAbandoned(path)) rmSync(path, { recursive: true, force: true })
    } catch (error) {
      log.warn('abandoned copy cannot be removed', { path, ...errorFields(error) })
    }
  }
}

function isAbandoned(copy: string): boolean {
  if (Date.now() - statSync(copy).mtimeMs > abandonedAfterMs) return true
  // The command has not claimed it yet.
  if (!existsSync(join(copy, ownerName))) return false
  try {
    lockFile(copy, ownerName, 0).close()
    return true
  } catch {
    return false
  }
}
