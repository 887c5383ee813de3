import type { LookupAddress } from 'node:dns'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { type DatabaseAddress, type Encryption, type Host, isSocket } from '../../config/database-url.ts'
import { atMost } from '../../lib/at-most.ts'

interface Dial {
  host: Host
  address: DatabaseAddress
  encryption: Encryption
  /** When it is given up, as `performance.now()` counts. */
  until: number
  /** Closes the socket, whatever it is doing. */
  signal: AbortSignal
}

/** A failure that another encryption may not have. */
export class EncryptionError extends Error {
  override readonly name = 'EncryptionError'
  readonly code: string
  constructor(message: string, code: string, cause?: unknown) {
    super(message, { cause })
    this.code = code
  }
}

/** Opens a socket to a server on which the start of a session can be sent. The error says which step failed. */
export async function dial({ host, address, encryption, until, signal }: Dial): Promise<Socket> {
  const socket = await open(host, until, signal)
  if (encryption === 'plain') return socket
  socket.on('error', () => {})
  try {
    if (!address.isDirectTls && !(await offersTls(socket, until))) {
      if (address.encryption.at(-1) === 'plain') return socket
      throw new EncryptionError('the server has no TLS', 'TLS_NOT_OFFERED')
    }
    return await startTls(socket, host, address, until)
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** Of several addresses of a name, each but the last has a quarter of a second to answer. */
async function open(server: Host, until: number, signal: AbortSignal): Promise<Socket> {
  const { name, port, address: host = name } = server
  const found = isSocket(server) ? [] : await lookUp(host, until)
  signal.throwIfAborted()
  const socket = isSocket(server)
    ? connect(`${name}/.s.PGSQL.${port}`)
    : connect({ host, port, autoSelectFamily: true, lookup: (_, __, done) => done(null, found) })
  signal.addEventListener('abort', () => socket.destroy())
  const connected = next(socket, 'connect')
  try {
    await before(until, 'nothing answers at the address of the server', 'CONNECT_TIMEOUT', connected)
    return socket
  } catch (error) {
    socket.destroy()
    throw error instanceof AggregateError ? error.errors.at(-1) : error
  }
}

async function lookUp(host: string, until: number): Promise<LookupAddress[]> {
  const found = lookup(host, { all: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTFOUND') error.message = `the name ${host} does not exist`
    throw error
  })
  return before(until, `the name ${host} was not looked up in time`, 'DNS_TIMEOUT', found)
}

/** Length, and the number that asks for TLS. */
const tlsRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

async function offersTls(socket: Socket, until: number): Promise<boolean> {
  const answered = next(socket, 'data')
  socket.write(tlsRequest)
  const [data] = await before(until, 'the server did not answer', 'CONNECT_TIMEOUT', answered)
  const answer = String(data)
  // Anything behind the one byte came without encryption and must not be read as if it had it.
  if (answer === 'S' || answer === 'N') return answer === 'S'
  throw Object.assign(new Error('what listens there is not PostgreSQL'), { code: 'NOT_POSTGRESQL' })
}

async function startTls(socket: Socket, { name }: Host, { tls }: DatabaseAddress, until: number) {
  // An IP address is checked, and not sent as a name.
  const secure = connectTls({ ...tls, socket, host: name, ...(isIP(name) === 0 && { servername: name }) })
  try {
    await before(until, 'TLS was not ready in time', 'CONNECT_TIMEOUT', next(secure, 'secureConnect'))
    return secure
  } catch (cause) {
    const { message, code = 'TLS' } = cause as NodeJS.ErrnoException
    throw new EncryptionError(message, code, cause)
  }
}

/** The arguments of the next event of a kind; fails when the socket does. */
function next(socket: Socket, event: 'connect' | 'data' | 'secureConnect'): Promise<unknown[]> {
  const closed = once(socket, 'close').then(() => {
    throw Object.assign(new Error('the server closed the connection'), { code: 'CONNECTION_CLOSED' })
  })
  return Promise.race([once(socket, event), closed])
}

/** Fails with a message and a code when it takes longer. */
export function before<T>(until: number, message: string, code: string, work: Promise<T>): Promise<T> {
  return atMost(until - performance.now(), work, () => {
    throw Object.assign(new Error(message), { code })
  })
}
