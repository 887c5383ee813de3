import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { clusterName } from '../config/data-dir.ts'
import type { Driver, QueryOptions, Rows } from '../db/driver.ts'
import { createDb } from '../db/drizzle.ts'
import { databaseError } from '../db/pg-error.ts'
import { AppError } from '../lib/errors.ts'
import { eraseUser } from '../modules/tasks/erasure.ts'
import { errorFields, type Log } from '../telemetry/log.ts'
import { type AddRows, addRows, type NewRow, type Outcome } from './transfer/bulk-insert.ts'

/**
 * The embedded database belongs to one process. While that is the service, other commands ask it, over a socket in
 * DATA_DIR that only the owner of the data may open: whoever can, could read the files as well.
 */
const socketName = 'control'
const copyName = /^copy-[0-9a-f-]{36}$/
const forgottenAfterMs = 24 * 60 * 60 * 1000

/** A folder in DATA_DIR for a copy of the database, which goes into `cluster` there; the caller takes it away. */
export const newCopy = (dataDir: string) => join(dataDir, `copy-${crypto.randomUUID()}`)

/**
 * Lets commands ask a service that has the embedded database. Without it (a path too long for a socket, a file system
 * that knows none) the service runs all the same, and says so in the log.
 */
export function answerCommands(dataDir: string, driver: Driver, log: Log): { stop(): Promise<void> } {
  removeForgottenCopies(dataDir)
  const unix = join(dataDir, socketName)
  // What a killed process left; the folder's lock is ours.
  rmSync(unix, { force: true })
  // Nobody else may get in between the making of the socket and a change of its mode.
  const mask = process.umask(0o177)
  try {
    const server = Bun.serve({
      unix,
      async fetch(request, server) {
        // A copy may take longer than a quiet connection is left open.
        server.timeout(request, 0)
        try {
          return Response.json({ result: await answer(request, dataDir, driver) })
        } catch (error) {
          return Response.json({ failure: describe(error) })
        }
      },
    })
    return {
      async stop() {
        await server.stop(true)
        rmSync(unix, { force: true })
      },
    }
  } catch (error) {
    log.warn('commands cannot reach this service', { socket: unix, ...errorFields(error) })
    return { async stop() {} }
  } finally {
    process.umask(mask)
  }
}

async function answer(request: Request, dataDir: string, driver: Driver): Promise<unknown> {
  const { pathname } = new URL(request.url)
  if (pathname === '/query') {
    const { text, values, options } = (await request.json()) as QueryCall
    const rows = await driver.query(text, values, options)
    return { rows, columns: rows.columns }
  }
  if (pathname === '/add-rows') return addRows(driver, (await request.json()) as NewRow[])
  if (pathname === '/erase') {
    const { userId } = (await request.json()) as { userId: string }
    return eraseUser(createDb(driver), userId)
  }
  if (pathname === '/copy') {
    const { name } = (await request.json()) as { name: string }
    if (!copyName.test(name)) throw new Error('no name for a copy')
    return driver.copyTo!(join(dataDir, name, clusterName))
  }
  return 'todo-api'
}

interface QueryCall {
  text: string
  values: unknown[]
  options?: QueryOptions
}

interface Failure {
  message: string
  code?: string | undefined
  constraint?: string | undefined
}

function describe(error: unknown): Failure {
  const failure = databaseError(error)
  const code = error instanceof AppError ? error.code : failure?.code
  const constraint = failure?.constraint_name ?? failure?.constraint
  return { message: error instanceof Error ? error.message : String(error), code, constraint }
}

/** What takes several statements, which a running service runs for a command: a command that hangs holds nothing. */
export interface ServiceCalls {
  addRows: AddRows
  /** Deletes what a deleted account has left. */
  erase(userId: string): Promise<number>
}

export type ServiceDriver = Driver & ServiceCalls

/** The database of a running service, from another process; `undefined` when none runs on this folder. */
export async function connectToService(dataDir: string): Promise<ServiceDriver | undefined> {
  const unix = join(dataDir, socketName)
  if (!existsSync(unix)) return undefined

  async function call(path: string, body: unknown): Promise<unknown> {
    const request = { unix, method: 'POST', body: JSON.stringify(body), timeout: false }
    const response = await fetch(`http://todo-api${path}`, request as RequestInit)
    const { result, failure } = (await response.json()) as { result: unknown; failure?: Failure }
    if (failure?.code === 'unavailable') throw new AppError('unavailable')
    if (failure) throw Object.assign(new Error(failure.message), failure)
    return result
  }

  try {
    await call('/', {})
  } catch {
    return undefined
  }
  return {
    kind: 'embedded',
    async query(text, values, options) {
      const { rows, columns } = (await call('/query', { text, values, options })) as {
        rows: unknown[][]
        columns?: Rows['columns']
      }
      return Object.assign(rows, { columns })
    },
    addRows: rows => call('/add-rows', rows) as Promise<Outcome[]>,
    erase: userId => call('/erase', { userId }) as Promise<number>,
    async transaction() {
      throw new Error('a service runs on this database; stop it first')
    },
    async copyTo(folder) {
      await call('/copy', { name: basename(dirname(folder)) })
    },
    async session() {
      throw new Error('a service runs on this database; stop it first')
    },
    async close() {},
  }
}

/** A command that was killed could not take its copy away. */
function removeForgottenCopies(dataDir: string): void {
  for (const name of readdirSync(dataDir)) {
    const path = join(dataDir, name)
    if (!copyName.test(name) || Date.now() - statSync(path).mtimeMs < forgottenAfterMs) continue
    rmSync(path, { recursive: true, force: true })
  }
}
