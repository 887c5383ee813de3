/** `startup` and `ssl` stand for the two messages of a client that have no type of their own. */
type MessageType = 'startup' | 'ssl' | (string & {})

/** The number with which a client asks for TLS. */
export const sslRequestCode = 80877103

/** Finds the messages in one direction of a PostgreSQL connection, whatever pieces they arrive in. */
export function createMessageReader(
  from: 'client' | 'server',
  onMessage: (type: MessageType, firstByte: number) => void,
) {
  const head = Buffer.alloc(8)
  let have = 0
  let skip = 0
  let hasType = from === 'server'
  let bareBytes = 0

  return {
    /** Whether the next byte begins a message. */
    get isAtStart() {
      return have === 0 && skip === 0
    },
    /** One byte without a frame comes next: the answer to a request for TLS. */
    expectBareByte() {
      bareBytes++
    },
    read(chunk: Uint8Array) {
      for (let at = 0; at < chunk.length; ) {
        if (bareBytes > 0) {
          bareBytes--
          at++
        } else if (skip > 0) {
          const skipped = Math.min(skip, chunk.length - at)
          skip -= skipped
          at += skipped
        } else {
          head[have++] = chunk[at++]!
          readHead()
        }
      }
    },
  }

  function readHead() {
    if (!hasType) {
      if (have < 8) return
      const isSsl = head.readUInt32BE(4) === sslRequestCode
      if (!isSsl) hasType = true
      finish(isSsl ? 'ssl' : 'startup', 0, head.readUInt32BE(0) - 8)
    } else if (have >= 5) {
      const bodyBytes = head.readUInt32BE(1) - 4
      if (bodyBytes === 0) finish(String.fromCharCode(head[0]!), 0, 0)
      else if (have === 6) finish(String.fromCharCode(head[0]!), head[5]!, bodyBytes - 1)
    }
  }

  function finish(type: MessageType, firstByte: number, rest: number) {
    have = 0
    skip = rest
    onMessage(type, firstByte)
  }
}

/** The message of a simple query. */
export function queryMessage(statement: string): Buffer {
  const text = Buffer.from(`${statement}\0`)
  const head = Buffer.from('Q\0\0\0\0')
  head.writeUInt32BE(text.length + 4, 1)
  return Buffer.concat([head, text])
}
