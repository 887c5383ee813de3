import { isSocket, parseDatabaseUrl } from '../../config/database-url.ts'
import type { Driver } from '../driver.ts'
import { unavailable } from '../pg-error.ts'
import { connectionLost, forCaller, isServerError } from './connection-errors.ts'
import { EncryptionError } from './dial.ts'
import { createPool, openingSecondsMax } from './pool.ts'
import { createPoolConnection } from './pool-connection.ts'
import {
  openSingleConnection,
  type Parameters,
  type SingleConnection,
  type Target,
} from './single-connection.ts'

interface PostgresSettings {
  /** As `parseDatabaseUrl` reads it. */
  url: string
  poolSize: number
  /** False behind a proxy that pools transactions and knows no prepared statements, unless it is seen to be one. */
  prepare?: boolean
  /** Called when there are fewer connections than are needed, with what keeps the next one from being opened. */
  onShortage?: ((cause: unknown) => void) | undefined
}

/** A PostgreSQL server, or the one of several that takes writes. Connects when the first query comes. */
export function openPostgres({ url, poolSize, prepare = true, onShortage }: PostgresSettings): Driver {
  const connect = createConnector(url)
  const connectPooled = async () => createPoolConnection(await connect(statementLimits), prepare)

  return {
    kind: 'postgres',
    ...createPool(connectPooled, poolSize, onShortage),
    async dedicatedConnection(work) {
      const own = await connect(migrationLimits, Number.POSITIVE_INFINITY).catch(error => {
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
const sessionParameters = {
  client_encoding: 'UTF8',
  TimeZone: 'UTC',
  DateStyle: 'ISO, MDY',
  standard_conforming_strings: 'on',
}

/**
 * Limits in milliseconds, below those of the pool, so that a slow statement does not cost a connection; none for an idle
 * session, which the server would end just as a statement is sent. No parallel plans,
 * and random pages at their cost on an SSD (the default, 4, is for disks): for the list of a user who owns a tenth of the
 * table, the whole table would be read, three processes at a time. READ COMMITTED, because writers of one user wait for each
 * other (docs/decisions/0005), and with more isolation the second one would fail.
 */
export const statementLimits = {
  statement_timeout: '1800',
  lock_timeout: '1000',
  idle_in_transaction_session_timeout: '2000',
  idle_session_timeout: '0',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
  random_page_cost: '1.1',
  default_transaction_isolation: 'read committed',
}

/**
 * For migrations, whatever the role's own settings are. A copy that vanishes in the middle of one must not keep its locks:
 * one that lives asks for the next statement at once.
 */
const migrationLimits = {
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '10000',
}

/** What connects to the server, of several hosts to the one that accepts writes. Throws when the address is invalid. */
function createConnector(url: string) {
  let address = parseDatabaseUrl(url)
  const { hosts } = address
  let current = 0
  let connections: SingleConnection[] = []

  /**
   * Tries each host once, the last good one first; at most `secondsMax` in all, divided among the hosts, so that a silent
   * one leaves time for the others. While there is a connection, only its host is tried: an old primary that comes back
   * and accepts writes would receive a part of them.
   */
  async function connect(parameters: Parameters, secondsMax = openingSecondsMax) {
    readAddress()
    const seconds = address.connectTimeoutSeconds ?? openingSecondsMax
    const until = performance.now() + Math.min(seconds, secondsMax) * 1000
    for (let left = currentHost() === undefined ? hosts.length : 1; ; left--) {
      const index = currentHost() ?? current
      const now = performance.now()
      try {
        return keep(await open(index, { ...sessionParameters, ...parameters }, now + (until - now) / left))
      } catch (error) {
        // Connections that still read there would keep the next ones from trying another host.
        if (error instanceof ReadOnlyError)
          for (const other of connections) if (other.index === index) void other.end()
        if (current === index) current = (index + 1) % hosts.length
        if (left === 1) throw error
      }
    }
  }

  /** Reads the files of certificates as well, as libpq does for each connection: they are replaced before they expire. */
  function readAddress() {
    try {
      address = parseDatabaseUrl(url)
    } catch {
      // A file is just being replaced: the last one stays.
    }
  }

  async function open(index: number, parameters: Parameters, until: number): Promise<SingleConnection> {
    try {
      const single = await openEncrypted({ address, index, parameters, until })
      if (!(address.mustBeWritable && single.isReadOnly)) return single
      single.destroy()
      throw new ReadOnlyError()
    } catch (error) {
      if (parameters === sessionParameters || !refusesParameters(error)) throw error
      return open(index, sessionParameters, until)
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

  return connect
}

class ReadOnlyError extends Error {
  readonly code = '25006'
  constructor() {
    super('the server accepts no writes')
  }
}

/** With and without TLS, in the order of the address, as long as that may be what the server refuses. */
async function openEncrypted(target: Omit<Target, 'encryption'>): Promise<SingleConnection> {
  const { address, index } = target
  const [first, second] = isSocket(address.hosts[index]!) ? (['plain'] as const) : address.encryption
  try {
    return await openSingleConnection({ ...target, encryption: first! })
  } catch (error) {
    if (!second || !mayBeEncryption(error)) throw error
    return openSingleConnection({ ...target, encryption: second }).catch(last => {
      throw mayBeEncryption(last) ? error : last
    })
  }
}

/** TLS failed, or a rule of the server's pg_hba.conf, which may ask for TLS or for none. */
const mayBeEncryption = (error: unknown) =>
  error instanceof EncryptionError || (isServerError(error) && error.code === '28000')

/** PgBouncer refuses parameters that it does not know. Then the limits must be set with `alter role … set`. */
function refusesParameters(error: unknown): boolean {
  return isServerError(error) && error.code === '08P01' && /startup parameter/.test(error.message)
}
