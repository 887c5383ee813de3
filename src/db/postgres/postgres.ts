import {
  type DatabaseAddress,
  type Encryption,
  isSocket,
  parseDatabaseUrl,
} from '../../config/database-url.ts'
import type { Driver } from '../driver.ts'
import { connectionLost, forCaller, isServerError, unavailable } from './connection-errors.ts'
import { EncryptionError } from './dial.ts'
import { createPool, openingSecondsMax } from './pool.ts'
import { createPoolConnection } from './pool-connection.ts'
import { openSingleConnection, type SingleConnection } from './single-connection.ts'

interface PostgresSettings {
  /** As `parseDatabaseUrl` reads it. */
  url: string
  poolSize: number
  /** False behind a proxy that pools transactions and knows no prepared statements, unless it is seen to be one. */
  prepare?: boolean
}

/** A PostgreSQL server, or the one of several that takes writes. Connects when the first query comes. */
export function openPostgres({ url, poolSize, prepare = true }: PostgresSettings): Driver {
  const server = createServer(url)
  const connect = async () => createPoolConnection(await server.connect(statementLimits), prepare)

  return {
    kind: 'postgres',
    ...createPool(connect, poolSize),
    async dedicatedConnection(work) {
      const own = await server.connect(migrationLimits, Number.POSITIVE_INFINITY).catch(error => {
        throw unavailable(error)
      })
      try {
        return await work({
          execute: script =>
            own.execute(script).catch(error => {
              throw forCaller(error)
            }),
        })
      } finally {
        await own.end()
      }
    },
  }
}

/** Session parameters for the same answers as the embedded database. PgBouncer accepts these. */
const sessionParameters = { client_encoding: 'UTF8', TimeZone: 'UTC', DateStyle: 'ISO, MDY' }

/**
 * Limits in milliseconds, below those of the pool, so that a slow statement does not cost a connection. No parallel plans:
 * for the list of a user who owns a tenth of the table, three processes would read the whole table, instead of one that
 * reads a tenth.
 */
const statementLimits = {
  statement_timeout: '1800',
  lock_timeout: '1000',
  idle_in_transaction_session_timeout: '5000',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
}

/** For migrations, whatever the role's own settings are. */
const migrationLimits = { statement_timeout: '0', lock_timeout: '0' }

type Parameters = Record<string, string>

/** Chooses the server: of several hosts the one that accepts writes. Throws when the address is invalid. */
function createServer(url: string) {
  const address = parseDatabaseUrl(url)
  const { hosts } = address
  const open = createOpener(address)
  let current = 0
  let connections: SingleConnection[] = []

  /**
   * Tries each host once, the last good one first; at most `secondsMax` in all, divided among the hosts, so that a silent
   * one leaves time for the others. While there is a connection, only its host is tried: an old primary that comes back
   * and accepts writes would receive a part of them.
   */
  async function connect(parameters: Parameters, secondsMax = openingSecondsMax) {
    const seconds = address.connectTimeoutSeconds ?? openingSecondsMax
    const until = performance.now() + Math.min(seconds, secondsMax) * 1000
    for (let left = currentHost() === undefined ? hosts.length : 1; ; left--) {
      const index = currentHost() ?? current
      const now = performance.now()
      try {
        return keep(await open(index, parameters, now + (until - now) / left))
      } catch (error) {
        // Connections that still read there would keep the next ones from trying another host.
        if (error instanceof ReadOnlyError)
          for (const other of connections) if (other.index === index) void other.end()
        if (current === index) current = (index + 1) % hosts.length
        if (left === 1) throw error
      }
    }
  }

  /** The host of the open connections. */
  function currentHost(): number | undefined {
    connections = connections.filter(single => !single.lost)
    return connections[0]?.index
  }

  function keep(single: SingleConnection): SingleConnection {
    const { index } = single
    if ((currentHost() ?? index) !== index) {
      single.destroy()
      throw connectionLost(new Error('another host is in use'))
    }
    connections.push(single)
    current = index
    return single
  }

  return { connect }
}

class ReadOnlyError extends Error {
  readonly code = '25006'
  constructor() {
    super('the server accepts no writes')
  }
}

/** Opens a connection to one of the hosts, with or without TLS and session parameters as the server accepts them. */
function createOpener(address: DatabaseAddress) {
  let acceptsParameters = true

  async function open(index: number, parameters: Parameters, until: number): Promise<SingleConnection> {
    const all = acceptsParameters ? { ...sessionParameters, ...parameters } : sessionParameters
    try {
      const single = await openEncrypted(index, all, until)
      if (!(address.mustBeWritable && single.isReadOnly)) return single
      single.destroy()
      throw new ReadOnlyError()
    } catch (error) {
      if (all === sessionParameters || !refusesParameters(error)) throw error
      acceptsParameters = false
      return open(index, parameters, until)
    }
  }

  /** With and without TLS, in the order of the address, as long as that may be what the server refuses. */
  async function openEncrypted(index: number, parameters: Parameters, until: number) {
    const [first, second] = isSocket(address.hosts[index]!) ? (['plain'] as const) : address.encryption
    const openWith = (encryption: Encryption) =>
      openSingleConnection({ address, index, encryption, parameters, until })
    try {
      return await openWith(first!)
    } catch (error) {
      if (!second || !mayBeEncryption(error)) throw error
      return openWith(second).catch(last => {
        throw mayBeEncryption(last) ? error : last
      })
    }
  }

  return open
}

/** TLS failed, or a rule of the server's pg_hba.conf, which may ask for TLS or for none. */
const mayBeEncryption = (error: unknown) =>
  error instanceof EncryptionError || (isServerError(error) && error.code === '28000')

/** PgBouncer refuses parameters that it does not know. Then the limits must be set with `alter role … set`. */
function refusesParameters(error: unknown): boolean {
  return isServerError(error) && error.code === '08P01' && /startup parameter/.test(error.message)
}
