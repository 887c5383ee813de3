import type { Socket } from 'node:net'
import postgres from 'postgres'
import type { DatabaseAddress } from '../../config/database-url.ts'
import { parsers, type QueryOptions, type Rows, serializers } from '../driver.ts'
import { connectionLost, createAnswers, faultOf } from './answers.ts'
import { before } from './dial.ts'
import { guardAuthentication } from './scram-guard.ts'

export interface Target {
  /** Which of the address's hosts it is. */
  index: number
  /** Opens the socket. */
  dial: (signal: AbortSignal) => Promise<Socket>
  /** What the session is set to, whatever the address says of it. */
  parameters: Record<string, string>
}

export type SingleConnection = ReturnType<typeof createSingleConnection>

/**
 * One postgres.js client with one connection that is never opened again.
 *
 * The socket is ours for that reason: left alone, postgres.js tries a host that closes the door at once (of several
 * hosts, one that refuses too) again and again without a pause, mixes rows and bytes of a lost connection into the
 * answers of the next one, and cannot drop a silent one.
 */
export function createSingleConnection(options: LibraryOptions, { index, dial, parameters }: Target) {
  const closing = new AbortController()
  let socket: Socket | undefined
  let lost = false
  let isReadOnly = false
  let isProxied = false

  const client = postgres({
    ...options,
    ...libraryOptions(),
    connection: merge(options.connection, parameters),
    onclose: () => destroy(),
    async socket() {
      // postgres.js would go on over another connection, with half of a script outside its transaction.
      if (closing.signal.aborted || socket) throw connectionLost()
      socket = await dial(closing.signal)
      guardAuthentication(socket)
      return socket
    },
    parsers: { ...options.parsers, ...parsers },
    serializers: { ...options.serializers, ...serializers },
  } as object)
  const answers = createAnswers({ client, isServerError, destroy, retire: () => void end() })

  /** postgres.js would tell the server a type after the look of these; the server knows better (`[true]` in a jsonb). */
  function untyped(value: unknown) {
    const looks = typeof value === 'boolean' || Array.isArray(value)
    return (looks ? client.typed(value, 0) : value) as postgres.ParameterOrJSON<never>
  }

  async function end() {
    lost = true
    await client.end({ timeout: 1 })
    closeSocket()
  }

  function destroy() {
    lost = true
    closeSocket()
    // Rejects what postgres.js still holds.
    void client.end({ timeout: 0 })
  }

  function closeSocket() {
    closing.abort()
    socket?.destroy()
  }

  return {
    index,
    get lost() {
      return lost
    },
    /** Whether the server refused writes at the handshake. */
    get isReadOnly() {
      return isReadOnly
    },
    /** Whether a proxy speaks for the server: it has a number of its own for the session. */
    get isProxied() {
      return isProxied
    },
    /** Connects. */
    async handshake(until: number) {
      const question = client
        .unsafe("select current_setting('transaction_read_only'), pg_backend_pid()")
        .values()
      const answer = await before(until, 'the server did not answer', 'CONNECT_TIMEOUT', question)
      const [readOnly, pid] = answer[0] ?? []
      if (readOnly === undefined) throw connectionLost()
      isReadOnly = readOnly === 'on'
      isProxied = pid !== answer.state.pid
    },
    /** Runs one statement; `undefined` among its values is a mistake of the program. */
    ask(text: string, values: readonly unknown[], options: QueryOptions): Promise<Rows> {
      if (values.includes(undefined))
        return Promise.reject(new TypeError('A value of a statement is undefined'))
      return answers.ask({ text, values: () => values.map(untyped), options })
    },
    /** Runs a script without values; returns the rows of its last statement. */
    async execute(script: string): Promise<Rows> {
      const result = await client.unsafe(script).values()
      // Several statements with rows: a list of results.
      const last = 'command' in result ? result : (result as unknown as (typeof result)[]).at(-1)!
      const fault = faultOf(last, last.length)
      if (!fault) return last as unknown as Rows
      destroy()
      throw connectionLost(new Error(`postgres.js: ${fault}`))
    },
    /** Waits for what is under way, at most a second. */
    end,
    destroy,
  }
}

export type LibraryOptions = postgres.ParsedOptions

/** An address in the words of postgres.js, which adds what the environment says (`PGUSER`, `PGPASSWORD`, `PGDATABASE`). */
export function readLibraryOptions({
  hosts,
  user,
  password,
  database,
  session,
}: DatabaseAddress): LibraryOptions {
  return postgres({
    host: hosts[0]!.name,
    port: hosts[0]!.port,
    ...(user && { user }),
    ...(password && { pass: password }),
    ...(database && { database }),
    connection: session,
    // The environment's wish is as good as the address's (`libraryOptions`), and some of them throw.
    target_session_attrs: 'primary',
  }).options
}

/**
 * Every option of postgres.js that changes how a connection behaves, so that neither the address nor the environment
 * decides: a connection that ends itself when it is old or idle drops what is queued behind, and `debug` puts the values
 * of a statement into its errors.
 */
const libraryOptions = () => ({
  max: 1,
  idle_timeout: null,
  max_lifetime: null,
  // The pool's own limits are shorter.
  connect_timeout: 30,
  max_pipeline: 100,
  backoff: 1,
  keep_alive: 60,
  prepare: true,
  debug: false,
  fetch_types: false,
  // The question for the state of a server is ours: postgres.js does not catch its failure.
  target_session_attrs: undefined,
  path: undefined,
  // The socket is encrypted before postgres.js has it.
  ssl: false,
  transform: { undefined: undefined, column: {}, value: {}, row: {} },
  onnotice: () => {},
  no_subscribe: true,
  // Options with these are taken as they are.
  parameters: {},
  shared: { retries: 0, typeArrayMap: {} },
})

/** Session parameters of the address and ours, which decide; the server does not look at the case of their names. */
function merge(address: object, ours: Record<string, string>): Record<string, string> {
  const decided = new Set(Object.keys(ours).map(name => name.toLowerCase()))
  const rest = Object.entries(address).filter(([name]) => !decided.has(name.toLowerCase()))
  return { ...Object.fromEntries(rest), ...ours }
}

/** True for what the server said, as opposed to what happened to the connection. */
export function isServerError(error: unknown): error is postgres.PostgresError {
  return error instanceof postgres.PostgresError
}
