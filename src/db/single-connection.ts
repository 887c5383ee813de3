import { once } from 'node:events'
import { connect as dial, type Socket } from 'node:net'
import postgres from 'postgres'
import { connectionLost, createAnswers, faultOf } from './answers.ts'
import { parsers, type QueryOptions, type Rows, serializers } from './driver.ts'
import { guardAuthentication } from './scram-guard.ts'

/** The address as postgres.js reads it, with what the environment (`PGUSER`, …) adds. */
export type Address = postgres.ParsedOptions

export interface Target {
  host: string
  port: number
  /** Which of the address's hosts it is. */
  index: number
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
export function createSingleConnection(address: Address, { host, port, index, parameters }: Target) {
  let socket: Socket | undefined
  let lost = false
  let isReadOnly = false
  let isProxied = false

  const options = {
    ...address,
    ...libraryOptions(),
    host: [host],
    port: [port],
    connection: merge(address.connection ?? {}, parameters),
    onclose: () => destroy(),
    async socket() {
      // postgres.js would go on over another connection, with half of a script outside its transaction.
      if (socket) throw connectionLost()
      socket = dial({ host, port })
      await once(socket, 'connect')
      guardAuthentication(socket)
      // Where postgres.js looks for the name that the server's certificate must carry.
      return Object.assign(socket, { host, port })
    },
    parsers: { ...address.parsers, ...parsers },
    serializers: { ...address.serializers, ...serializers },
  }
  const client = postgres(options as object)
  const answers = createAnswers({ client, isServerError, destroy, retire: () => void end() })

  /** postgres.js would tell the server a type after the look of these; the server knows better (`[true]` in a jsonb). */
  function untyped(value: unknown) {
    const looks = typeof value === 'boolean' || Array.isArray(value)
    return (looks ? client.typed(value, 0) : value) as postgres.ParameterOrJSON<never>
  }

  async function end() {
    lost = true
    await client.end({ timeout: 1 })
    socket?.destroy()
  }

  function destroy() {
    lost = true
    socket?.destroy()
    // Rejects what postgres.js still holds.
    void client.end({ timeout: 0 })
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
    async handshake(milliseconds: number) {
      const question = client
        .unsafe("select current_setting('transaction_read_only'), pg_backend_pid()")
        .values()
      const answer = await within(milliseconds, question)
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

async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  let timer: Timer | undefined
  const timeout = new Promise<never>((_, reject) => {
    const late = Object.assign(new Error('the server did not answer'), { code: 'CONNECT_TIMEOUT' })
    timer = setTimeout(() => reject(late), milliseconds)
  })
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer))
}

/** True for what the server said, as opposed to what happened to the connection. */
export function isServerError(error: unknown): error is postgres.PostgresError {
  return error instanceof postgres.PostgresError
}
