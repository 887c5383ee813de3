import { timingSafeEqual } from 'node:crypto'
import { deriveKey, hmac } from './derive-key.ts'
import { invalid } from './errors.ts'

const macBytes = 16

/**
 * Cursors: a place in a list that the client holds and cannot change. An HMAC-SHA256 under a key of this service binds
 * each to a user and to a kind of list.
 */
export function createCursors(secretKey: string) {
  const key = deriveKey(secretKey, 'cursors')

  /** `content` as a cursor: base64url of the MAC and the content. */
  function sign(kind: string, userId: string, content: string): string {
    const mac = hmac(key, `${kind}\0${userId}\0${content}`).subarray(0, macBytes)
    return Buffer.concat([mac, Buffer.from(content)]).toString('base64url')
  }

  /** The content of a cursor; `undefined` when this service did not make it for this user and this kind of list. */
  function verify(kind: string, userId: string, cursor: string): string | undefined {
    const content = Buffer.from(cursor, 'base64url').subarray(macBytes).toString()
    // Signed again and compared as text: base64 has several texts for the same bytes, and only ours is valid.
    const given = Buffer.from(cursor)
    const expected = Buffer.from(sign(kind, userId, content))
    return given.length === expected.length && timingSafeEqual(given, expected) ? content : undefined
  }

  /**
   * The content of the cursor in a request; `undefined` without one. Throws `validation_failed` for one that is not valid
   * here, and for one beside an offset.
   */
  function read(kind: string, userId: string, { cursor, offset = 0 }: Start, loc = ['query', 'cursor']) {
    if (cursor === undefined) return undefined
    if (offset > 0) {
      const msg = 'Use either offset or cursor'
      throw invalid({ loc: ['query', 'offset'], msg, type: 'not_combinable' })
    }
    const content = verify(kind, userId, cursor)
    if (content !== undefined) return content
    const msg = 'Input should be a cursor that was given to you for this list'
    throw invalid({ loc, msg, type: 'cursor_invalid' })
  }

  return { sign, verify, read }
}

export type Cursors = ReturnType<typeof createCursors>

/** Where a request begins in a list. */
interface Start {
  cursor?: string | undefined
  offset?: number | undefined
}
