import type { Socket } from 'node:net'
import { connectionLost } from './connection-errors.ts'

/** Each costs a hash on the thread of all requests; PostgreSQL's default is 4096. */
const iterationsMax = 100_000
const bytesMax = 64 * 1024

const authentication = { ok: 0, sasl: 10, saslContinue: 11, saslFinal: 12 }

/**
 * Checks the messages of a SCRAM exchange before postgres.js reads them: at a malformed one it throws an uncaught error, it
 * hashes as often as the server demands, and it takes an exchange that ends without the server's proof as complete. As with
 * libpq, a server may ask for another method, or for none: who it is, only `sslmode=verify-full` proves.
 */
export function guardAuthentication(socket: Socket): void {
  let held = Buffer.alloc(0)
  let mustProve = false

  /** The fault of a message, if it has one. */
  function faultOf(kind: number, text: string): string | undefined {
    if (kind === authentication.sasl) {
      mustProve = true
      return text.split('\0').includes('SCRAM-SHA-256') ? undefined : 'no known mechanism'
    }
    if (kind === authentication.saslContinue) {
      const iterations = Number(/^r=[^,]+,s=[A-Za-z0-9+/]+=*,i=([1-9]\d*)$/.exec(text)?.[1])
      return iterations <= iterationsMax
        ? undefined
        : 'a malformed challenge, or one with too many iterations'
    }
    if (kind === authentication.saslFinal) mustProve = false
    if (kind === authentication.ok && mustProve) return 'no proof of the server'
    return undefined
  }

  /** Whether authentication is over after these messages; `undefined` when the last of them is incomplete. */
  function check(messages: Buffer): boolean | undefined {
    for (let at = 0, end: number; at < messages.length; at = end) {
      if (messages.length < at + 5) return undefined
      end = at + 1 + messages.readUInt32BE(at + 1)
      if (messages.length < end) return undefined
      // Another message, as a notice, may come before or in between.
      if (messages[at] !== 82) continue
      const kind = messages.readUInt32BE(at + 5)
      const fault = faultOf(kind, messages.toString('utf8', at + 9, end))
      if (fault) throw connectionLost(new Error(`the server's authentication: ${fault}`))
      if (kind === authentication.ok) return true
    }
    return false
  }

  const on = socket.on.bind(socket)
  socket.on = ((event: string, listener: (data: Buffer) => void) => {
    if (event !== 'data') return on(event, listener)
    socket.on = on
    const checked = (data: Buffer) => {
      held = Buffer.concat([held, data])
      try {
        const isOver = check(held)
        if (isOver === undefined && held.length > bytesMax)
          throw connectionLost(new Error("the server's authentication: a message without an end"))
        if (isOver === undefined) return
        if (isOver) socket.off('data', listener).on('data', listener)
      } catch (error) {
        socket.destroy(error as Error)
        return
      }
      const passed = held
      held = Buffer.alloc(0)
      listener(passed)
    }
    // Node removes it by `listener`, as it does with `once`.
    return on(event, Object.assign(checked, { listener }))
  }) as typeof on
}
