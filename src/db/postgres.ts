import { once } from 'node:events'
import { connect as dial, type Socket } from 'node:net'
import postgres from 'postgres'
import { type Driver, parsers, type Rows, type Session, serializers } from './driver.ts'
import { createPool, openingSecondsMax, type PoolConnection, unavailable } from './pool.ts'

interface PostgresSettings {
  /** `postgres://user:password@host:port/database?sslmode=…`; several `host:port` with commas between them. */
  url: string
  poolSize: number
  /** False behind a proxy that pools transactions and knows no prepared statements, unless it is seen to be one. */
  prepare?: boolean
}

/** A PostgreSQL server, or the one of several that takes writes. Connects when the first query comes. */
export function openPostgres({ url, poolSize, prepare = true }: PostgresSettings): Driver {
  const server = createServer(url)
  const pool = createPool({
    size: poolSize,
    connect: async () => connection(await server.connect(limits), prepare),
  })

  return {
    kind: 'postgres',
    query: pool.query,
    transaction: pool.transaction,
    close: pool.close,
    stats: pool.stats,
    async session(work) {
      const own = await server.connect(noLimits).catch(error => {
        throw unavailable(error)
      })
      try {
        return await work(session(own))
      } finally {
        await own.end()
      }
    },
  }
}

/** What every session needs to give the same answers as the embedded database. PgBouncer lets these through. */
const basics = { application_name: 'todo-api', TimeZone: 'UTC', DateStyle: 'ISO, MDY' }

/**
 * How long the server works on a statement, in milliseconds. It answers before the pool's own limit, so that a slow
 * statement costs no connection.
 */
const limits = {
  statement_timeout: '1800',
  lock_timeout: '1000',
  idle_in_transaction_session_timeout: '5000',
  jit: 'off',
}

/** For migrations, whatever the role's own settings are. */
const noLimits = { statement_timeout: '0', lock_timeout: '0' }

interface Host {
  host: string
  port: number
}

type Parameters = Record<string, string>

interface Target extends Host {
  /** Which of the hosts it is. */
  index: number
  parameters: Parameters
}

type Wire = ReturnType<typeof createWire>

/** Opens wires to whoever the address names. Throws when the address cannot be right. */
function createServer(url: string) {
  const { address, hosts } = readAddress(url)
  let current = 0
  let takesParameters = true
  let wires: Wire[] = []

  /**
   * Tries each host once, beginning with the one that was good last; at most `openingSecondsMax` in all, so that one
   * that says nothing leaves time for the others. As long as one wire is well, its host is the only one: an old primary
   * that comes back and takes writes would get a part of them.
   */
  async function connect(parameters: Parameters) {
    const until = performance.now() + openingSecondsMax * 1000
    for (let left = liveHost() === undefined ? hosts.length : 1; ; left--) {
      const index = liveHost() ?? current
      const now = performance.now()
      try {
        return keep(await openWire(index, parameters, now + (until - now) / left))
      } catch (error) {
        if (current === index) current = (index + 1) % hosts.length
        if (left === 1) throw error
      }
    }
  }

  /** The host that wires lead to. */
  function liveHost(): number | undefined {
    wires = wires.filter(wire => !wire.lost)
    return wires[0]?.index
  }

  function keep(wire: Wire): Wire {
    const { index } = wire
    if ((liveHost() ?? index) !== index) {
      wire.destroy()
      throw failure('another host is in use', 'CONNECTION_CLOSED')
    }
    wires.push(wire)
    current = index
    return wire
  }

  async function openWire(index: number, parameters: Parameters, until: number): Promise<Wire> {
    const all = takesParameters ? { ...basics, ...parameters } : basics
    const wire = createWire(address, { ...hosts[index]!, index, parameters: all })
    try {
      await wire.greet(until - performance.now())
      // Of several hosts only the one that takes writes is of use.
      if (hosts.length > 1 && wire.isReadOnly) {
        // Whoever still reads there would keep the others from looking elsewhere.
        for (const other of wires) if (other.index === index) void other.end()
        throw failure('the server takes no writes', '25006')
      }
      return wire
    } catch (error) {
      wire.destroy()
      if (all === basics || !refusesParameters(error)) throw error
      takesParameters = false
      return openWire(index, parameters, until)
    }
  }

  return { connect }
}

function readAddress(url: string) {
  // postgres.js asks for the state of a server in a query whose failure nobody catches; we ask ourselves.
  const address = url.replace(/([?&])target_session_attrs=[^&]*&?/, '$1')
  let options: { host: string[]; port: number[] }
  try {
    options = postgres(address).options
  } catch {
    // Without the cause: it holds the address, and that holds the password.
    throw new Error('The address of the database is not a URL')
  }
  const hosts = options.host.map((host, i): Host => ({ host, port: options.port[i]! }))
  if (!hosts.every(({ port }) => port > 0 && port < 65536)) {
    throw new Error('The address of the database has a port that is no number from 1 to 65535')
  }
  return { address, hosts }
}

/** PgBouncer refuses parameters that it does not know. Then the limits must be set with `alter role … set`. */
function refusesParameters(error: unknown): boolean {
  return isServerError(error) && error.code === '08P01' && /startup parameter/.test(error.message)
}

/**
 * One postgres.js client with one connection that is never opened again.
 *
 * The socket is ours for that reason: left alone, postgres.js tries a host that closes the door at once (of several
 * hosts, one that refuses too) again and again without a pause, mixes rows and bytes of a lost connection into the
 * answers of the next one, and cannot drop a silent one.
 */
function createWire(address: string, { host, port, index, parameters }: Target) {
  let socket: Socket | undefined
  let lost = false
  let isReadOnly = false
  let isProxied = false

  const options = {
    host,
    port,
    max: 1,
    fetch_types: false,
    onnotice: () => {},
    connection: parameters,
    // A connection that ends itself would drop what is queued behind; the pool sees to its age.
    max_lifetime: null,
    onclose: () => wire.destroy(),
    async socket() {
      if (socket) throw failure('the connection was lost', 'CONNECTION_CLOSED')
      socket = dial({ host, port })
      await once(socket, 'connect')
      // Where postgres.js looks for the name that the server's certificate must carry.
      return Object.assign(socket, { host, port })
    },
  }
  const client = postgres(address, options)
  Object.assign(client.options.parsers, parsers)
  Object.assign(client.options.serializers, serializers)

  const wire = {
    client,
    index,
    get lost() {
      return lost
    },
    /** Whether the server took no writes when it was greeted. */
    get isReadOnly() {
      return isReadOnly
    },
    /** Connects. */
    async greet(milliseconds: number) {
      const question = client
        .unsafe("select current_setting('transaction_read_only'), pg_backend_pid()")
        .values()
      const answer = await within(milliseconds, question)
      const [readOnly, pid] = answer[0]!
      isReadOnly = readOnly === 'on'
      isProxied = pid !== answer.state.pid
    },
    /** Whether a proxy speaks for the server: it has a number of its own for the session. */
    get isProxied() {
      return isProxied
    },
    async end() {
      lost = true
      await client.end({ timeout: 1 })
      socket?.destroy()
    },
    destroy() {
      lost = true
      socket?.destroy()
      // Rejects what postgres.js still holds.
      void client.end({ timeout: 0 })
    },
  }
  return wire
}

function failure(message: string, code: string): Error {
  return Object.assign(new Error(message), { code })
}

/** A mistake of ours, told before anything is sent. */
function undefinedValue(): Error {
  return new TypeError('A value of a statement is undefined')
}

async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  let timer: Timer | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(failure('the server did not answer', 'CONNECT_TIMEOUT')), milliseconds)
  })
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer))
}

/** Each prepared statement costs the server memory for as long as the connection lives. */
const preparedMax = 256

/**
 * A wire as the pool wants it.
 *
 * Behind a proxy that pools transactions the next statement may go to another session of the server. So nothing is
 * prepared there, and nothing is sent behind a statement that has no answer: PgBouncer before 1.21 forgets whose turn
 * it is, and values meet somebody else's statement.
 */
function connection(wire: Wire, mayPrepare: boolean): PoolConnection {
  const canPrepare = mayPrepare && !wire.isProxied
  const prepared = new Set<string>()

  /** postgres.js would tell the server a type after the look of these; the server knows better (`[true]` in a jsonb). */
  function untyped(value: unknown) {
    const looks = typeof value === 'boolean' || Array.isArray(value)
    return (looks ? wire.client.typed(value, 0) : value) as string
  }

  function keep(text: string): boolean {
    if (!canPrepare) return false
    return prepared.has(text) || (prepared.size < preparedMax && prepared.add(text) !== undefined)
  }

  /** What the caller of a failed statement is told; notes when the failure was the end of the connection. */
  function failed(error: unknown): unknown {
    // Whatever else fails, postgres.js may have lost count of whom it answers.
    if (!isServerError(error)) wire.destroy()
    // It has become a standby, or the name now means another server. What was so from the start is no news.
    else if (error.code === '25006' && !wire.isReadOnly) void wire.end()
    return isUnavailable(error) ? unavailable(error) : error
  }

  return {
    get lost() {
      return wire.lost
    },
    isReadOnly: wire.isReadOnly,
    depthMax: canPrepare ? 4 : 1,
    async run(text, values, { prepare = false } = {}) {
      if (wire.lost) throw unavailable('the connection was lost')
      if (values.includes(undefined)) throw undefinedValue()
      const how = { prepare: prepare && keep(text), simple: false }
      try {
        const answer = await wire.client.unsafe(text, values.map(untyped), how).values()
        return answer as Rows
      } catch (error) {
        throw failed(error)
      }
    },
    end: wire.end,
    destroy: wire.destroy,
  }
}

function session(wire: Wire): Session {
  return {
    async execute(script) {
      // postgres.js would open another connection, and half a script would run outside its transaction.
      if (wire.lost) throw unavailable('the connection was lost')
      try {
        const result = await wire.client.unsafe(script).values()
        // Several statements with rows: a list of results.
        return ('command' in result ? result : (result as unknown[][][]).at(-1)) as unknown[][]
      } catch (error) {
        throw isUnavailable(error) ? unavailable(error) : error
      }
    },
  }
}

/** True for what the server said, as opposed to what happened to the connection. */
function isServerError(error: unknown): error is postgres.PostgresError {
  return error instanceof postgres.PostgresError
}

/**
 * SQLSTATEs that say nothing about the statement, only that it cannot be answered now: connection (08), resources (53),
 * operator (57: shut down, starting up, statement_timeout), lock_timeout, deadlock, serialization, a server that
 * takes no writes, and no way in (28, 3D).
 */
const unavailableStates = /^(08|28|3D|53|57)|^(25006|40001|40P01|55P03)$/

/** Whether a failure of postgres.js means that the database is away or overloaded, and not that the statement is wrong. */
export function isUnavailable(error: unknown): boolean {
  if (isServerError(error)) return unavailableStates.test(error.code)
  // Sockets, TLS and postgres.js give a code to what happens on the way; this one is a mistake of the caller.
  return error instanceof Error && 'code' in error && error.code !== 'MAX_PARAMETERS_EXCEEDED'
}
