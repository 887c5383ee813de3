import type { Socket } from 'node:net'
import postgres from 'postgres'
import type { DatabaseAddress, Encryption } from '../../config/database-url.ts'
import { parsers, type Rows, serializers } from '../driver.ts'
import { createAnswers, faultOf, ignoreCopy } from './answers.ts'
import { connectionLost } from './connection-errors.ts'
import { before, dial } from './dial.ts'
import { guardAuthentication } from './scram-guard.ts'

/** Session parameters. */
export type Parameters = Record<string, string>

export interface Target {
  address: DatabaseAddress
  /** Which of the address's hosts it is. */
  index: number
  encryption: Encryption
  /** They override those of the address. */
  parameters: Parameters
  /** When it is given up, as `performance.now()` counts. */
  until: number
}

export type SingleConnection = Awaited<ReturnType<typeof openSingleConnection>>

const cancelMs = 1000
/** The number that PostgreSQL's protocol has for it. */
const cancelCode = 80877102

/**
 * One postgres.js client with one connection that is never opened again.
 *
 * For that the socket is opened here. Otherwise postgres.js reconnects to a host that closes at once (of several hosts,
 * to one that refuses, too) in a loop without a pause, mixes rows and bytes of a lost connection into the answers of the
 * next one, and cannot drop a silent one.
 */
export async function openSingleConnection({ address, index, encryption, parameters, until }: Target) {
  const options = libraryOptions(address, parameters)
  const opened = Promise.withResolvers<void>()
  let socket: Socket | undefined
  let lost = false

  const client = postgres({
    // Parsed options are taken as they are.
    ...options,
    onclose: () => destroy(),
    async socket() {
      // postgres.js would continue on another connection, with half of a script outside of its transaction.
      if (lost || socket) throw connectionLost()
      socket = await dial({ host: address.hosts[index]!, address, encryption, until })
      // Given up at the last moment.
      if (lost) socket.destroy()
      guardAuthentication(socket)
      opened.resolve()
      return socket
    },
    parsers: { ...options.parsers, ...parsers },
    serializers: { ...options.serializers, ...serializers },
  } as object)

  async function end() {
    lost = true
    await client.end({ timeout: 1 })
    socket?.destroy()
  }

  function destroy() {
    lost = true
    socket?.destroy()
    // Rejects the statements that postgres.js still has.
    void client.end({ timeout: 0 })
  }

  async function handshake() {
    const query = client
      .unsafe("select current_setting('transaction_read_only'), pg_backend_pid()")
      .values()
      .execute()
    // `dial` has the same limit, and names the step that took too long.
    await Promise.race([query, opened.promise])
    const answer = await before(until, 'the server did not answer', 'CONNECT_TIMEOUT', query)
    ignoreCopy(answer)
    const [readOnly, pid] = answer[0] ?? []
    if (readOnly === undefined) throw connectionLost()
    return { isReadOnly: readOnly === 'on', isProxied: pid !== answer.state.pid, session: answer.state }
  }

  /**
   * Ends what the server still does here (CancelRequest): a commit that waits for a standby notices neither a time limit nor
   * a closed connection, and would keep its session. Not through a proxy, which might cancel what it does for another client.
   */
  async function cancel() {
    if (isProxied || lost) return
    const request = Buffer.alloc(16)
    const words = [request.length, cancelCode, session.pid, session.secret]
    for (const [i, word] of words.entries()) request.writeUInt32BE(word, 4 * i)
    const host = address.hosts[index]!
    const other = await dial({ host, address, encryption, until: performance.now() + cancelMs })
    other.on('error', () => {}).end(request)
  }

  const ask = createAnswers({ client, destroy, retire: () => void end() })
  const { isReadOnly, isProxied, session } = await handshake().catch(error => {
    destroy()
    throw error
  })
  return {
    index,
    get lost() {
      return lost
    },
    /** Whether the server refused writes at the handshake. */
    isReadOnly,
    /** Whether a proxy is in between: its process number is not the server's. */
    isProxied,
    /** Runs one statement. */
    ask,
    /** Runs a script without values; returns the rows of its last statement. */
    async execute(script: string): Promise<Rows> {
      const result = await client.unsafe(script).values()
      ignoreCopy(result)
      // Several statements with rows: a list of results.
      const last = 'command' in result ? result : (result as unknown as (typeof result)[]).at(-1)!
      const fault = faultOf(last, last.length)
      if (!fault) return last as unknown as Rows
      destroy()
      throw connectionLost(new Error(`postgres.js: ${fault}`))
    },
    cancel,
    /** Closes the connection when sent statements are answered, at most a second later. */
    end,
    destroy,
  }
}

/**
 * The options of postgres.js for an address; it adds `PGUSER`, `PGPASSWORD` and `PGDATABASE` of the environment. Every
 * other option that changes how a connection behaves is set, so that neither the address nor the environment sets it: a
 * connection that closes when it is old or idle drops queued statements, and `debug` puts the values of a statement into
 * its errors.
 */
function libraryOptions(
  { hosts, user, password, database, session }: DatabaseAddress,
  parameters: Parameters,
) {
  const { options } = postgres({
    host: hosts[0]!.name,
    port: hosts[0]!.port,
    user,
    pass: password,
    database,
    connection: merge(session, parameters),
    max: 1,
    idle_timeout: null,
    max_lifetime: null,
    // The pool has shorter limits.
    connect_timeout: 30,
    max_pipeline: 100,
    keep_alive: 60,
    prepare: true,
    debug: false,
    fetch_types: false,
    // The socket is encrypted before postgres.js has it.
    ssl: false,
    onnotice: () => {},
    // Otherwise it is read from the environment, where an invalid value throws.
    target_session_attrs: 'primary',
  } as object)
  // `handshake` asks for the state of the server: postgres.js does not catch a failure of its query.
  return { ...options, target_session_attrs: undefined, no_subscribe: true }
}

/** Session parameters of the address, overridden by ours; the server ignores the case of their names. */
function merge(address: object, ours: Parameters): Parameters {
  const decided = new Set(Object.keys(ours).map(name => name.toLowerCase()))
  const rest = Object.entries(address).filter(([name]) => !decided.has(name))
  return { ...Object.fromEntries(rest), ...ours }
}
