import { createServer, type Socket } from 'node:net'
import { listenOnFreePort } from './ports.ts'
import { sslRequestCode } from './postgres-messages.ts'

/**
 * A server that speaks PostgreSQL's protocol as a test wants it: well, except for what `on` says. It answers each
 * statement with one row of one text, `text|values`, unless `rows` says otherwise.
 */
export interface Script {
  /** Replaces the answer to a message (`P`arse, `D`escribe, `B`ind, `E`xecute, `S`ync, `Q`uery); empty for silence. */
  on?: ((type: string, exchange: Exchange) => Buffer | undefined) | undefined
  /** Replaces the greeting, and the answers to what the client says to prove who it is. */
  authenticate?: (answer: string | undefined) => Buffer | undefined
  /** Replaces the answer to a client that asks for TLS, of which there is none. */
  tls?: Buffer
  rows?: (exchange: Exchange) => string[][]
  /** The types of a statement's values; text if nothing is said. */
  takes?: (text: string) => number[]
}

/** What one connection is about. */
interface Exchange {
  text: string
  values: (string | null)[]
}

const int16 = (n: number) => Buffer.from([(n >> 8) & 255, n & 255])
const int32 = (n: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(n)
  return bytes
}
const terminated = (text: string) => Buffer.from(`${text}\0`)

/** Messages of the server. */
export const message = (type: string, ...parts: Buffer[]) => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}
export const readyForQuery = message('Z', Buffer.from('I'))
export const row = (...cells: string[]) =>
  message(
    'D',
    int16(cells.length),
    ...cells.flatMap(cell => [int32(Buffer.byteLength(cell)), Buffer.from(cell)]),
  )
export const complete = (tag: string) => message('C', terminated(tag))
export const failed = (code: string, text: string, routine = 'someRoutine') =>
  message(
    'E',
    ...['SERROR', 'VERROR', `C${code}`, `M${text}`, `R${routine}`].map(terminated),
    Buffer.from([0]),
  )
export const authentication = (kind: number, text = '') => message('R', int32(kind), Buffer.from(text))
const [int4, text] = [23, 25]
export const columns = (...types: number[]) =>
  message(
    'T',
    int16(types.length),
    ...types.map((type, i) =>
      Buffer.concat([terminated(`c${i}`), int32(0), int16(0), int32(type), int16(-1), int32(-1), int16(0)]),
    ),
  )
const greeting = Buffer.concat([authentication(0), message('K', int32(4242), int32(1)), readyForQuery])

/** Starts it on a free port. */
export async function startScriptedServer(script: Script = {}) {
  const sockets = new Set<Socket>()
  /** What arrived: `P text`, `B text [values]`. */
  const received: string[] = []
  /** What the sessions began with: names and values, each with a NUL behind it. */
  const startups: string[] = []
  let connections = 0
  const server = createServer(socket => {
    connections++
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    converse(socket, script, { received, startups })
  })
  const port = await listenOnFreePort(server)
  return {
    url: `postgres://someone:secret@127.0.0.1:${port}/anything`,
    received,
    startups,
    connections: () => connections,
    /** How many of them are open. */
    open: () => sockets.size,
    /** Greets those who were left waiting (`authenticate`). */
    handshake() {
      for (const socket of sockets) socket.write(greeting)
    },
    [Symbol.dispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

function converse(
  socket: Socket,
  script: Script,
  { received, startups }: { received: string[]; startups: string[] },
) {
  const statements = new Map<string, string>()
  const exchange: Exchange = { text: '', values: [] }
  let bytes = Buffer.alloc(0)
  let isGreeted = false
  /** After an error everything up to the next Sync is left out. */
  let skips = false

  const send = (answer: Buffer) => {
    if (answer.length > 0 && !socket.destroyed) socket.write(answer)
  }

  function answer(type: string, body: Buffer): Buffer {
    const name = (at: number) => body.toString('utf8', at, body.indexOf(0, at))
    if (type === 'P') {
      exchange.text = name(name(0).length + 1)
      statements.set(name(0), exchange.text)
      received.push(`P ${exchange.text}`)
    }
    if (type === 'D') exchange.text = statements.get(name(1)) ?? ''
    if (type === 'B') {
      const portal = name(0).length + 1
      const statement = name(portal)
      exchange.text = statements.get(statement) ?? ''
      exchange.values = readValues(body, portal + statement.length + 1)
      received.push(`B ${exchange.text} ${JSON.stringify(exchange.values)}`)
    }
    if (type === 'Q') exchange.text = name(0)
    if (skips && type !== 'S') return Buffer.alloc(0)
    skips = false
    const own = script.on?.(type, exchange)
    if (own) skips = own[0] === 69
    return own ?? usual(type)
  }

  function usual(type: string): Buffer {
    if (type === 'S') return readyForQuery
    if (type === 'P') return message('1')
    if (type === 'B') return message('2')
    if (type === 'D') {
      const takes = script.takes?.(exchange.text) ?? [...exchange.text.matchAll(/\$\d+/g)].map(() => text)
      return Buffer.concat([message('t', int16(takes.length), ...takes.map(int32)), columns(text)])
    }
    if (type === 'E') {
      const rows = script.rows?.(exchange) ?? [[`${exchange.text}|${exchange.values.join()}`]]
      return Buffer.concat([...rows.map(cells => row(...cells)), complete(`SELECT ${rows.length}`)])
    }
    if (type === 'Q')
      return Buffer.concat([columns(text, int4), row('off', '4242'), complete('SELECT 1'), readyForQuery])
    return Buffer.alloc(0)
  }

  socket.on('data', (data: Buffer) => {
    bytes = Buffer.concat([bytes, data])
    while (true) {
      const head = isGreeted ? 1 : 0
      if (bytes.length < head + 4 || bytes.length < head + bytes.readInt32BE(head)) return
      const end = head + bytes.readInt32BE(head)
      const type = String.fromCharCode(bytes[0]!)
      const body = bytes.subarray(head + 4, end)
      bytes = bytes.subarray(end)
      if (!isGreeted && body.readInt32BE(0) === sslRequestCode) {
        send(script.tls ?? Buffer.from('N'))
        continue
      }
      if (!isGreeted) startups.push(body.toString('utf8', 4))
      if (!isGreeted) send(script.authenticate?.(undefined) ?? greeting)
      else if (type === 'p') send(script.authenticate?.(body.toString()) ?? greeting)
      else if (type === 'X') socket.end()
      else send(answer(type, body))
      isGreeted = true
    }
  })
}

/** The values of a Bind message, whose list of formats begins at `at`. */
function readValues(body: Buffer, at: number): (string | null)[] {
  let next = at + 2 + 2 * body.readInt16BE(at)
  const count = body.readUInt16BE(next)
  next += 2
  return Array.from({ length: count }, () => {
    const length = body.readInt32BE(next)
    next += 4
    if (length < 0) return null
    next += length
    return body.toString('utf8', next - length, next)
  })
}
