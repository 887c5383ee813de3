import { timingSafeEqual } from 'node:crypto'
import { decodeBase64url } from '../../lib/base64url.ts'
import { deriveKey, hmac } from '../../lib/derive-key.ts'
import { formatUuid, uuidBytes } from '../../lib/uuid.ts'

export type RefreshTokens = ReturnType<typeof createRefreshTokens>

const idBytes = 16
const secretBytes = 32
const signatureBytes = 16

/**
 * Refresh tokens: the session's id, a secret of 256 bits and a signature, in base64url. Opaque to clients.
 *
 * The first secret of a session is random; each later one is the HMAC of its predecessor. So two requests with one token
 * (two tabs, a lost answer) receive the same next token, although only hashes are stored. The signature distinguishes an
 * old token of ours, which ends its session, from an invented one, which must not.
 */
export function createRefreshTokens(secretKey: string) {
  const childKey = deriveKey(secretKey, 'refresh token: next')
  const signingKey = deriveKey(secretKey, 'refresh token: seal')

  function write(sessionId: string, secret: Uint8Array): string {
    const body = Buffer.concat([uuidBytes(sessionId), secret])
    return Buffer.concat([body, sign(body)]).toString('base64url')
  }

  const sign = (body: Uint8Array) => hmac(signingKey, body).subarray(0, signatureBytes)

  return {
    /** The first token of a session. */
    first: (sessionId: string) => write(sessionId, crypto.getRandomValues(new Uint8Array(secretBytes))),

    /** The session of a token that we signed, and the next token; `undefined` for anything else. */
    read(token: string): { sessionId: string; next: string } | undefined {
      // Of another text for the same bytes the hash would differ, and look like that of an old token.
      const bytes = decodeBase64url(token)
      if (bytes?.length !== idBytes + secretBytes + signatureBytes) return undefined
      const body = bytes.subarray(0, idBytes + secretBytes)
      if (!timingSafeEqual(sign(body), bytes.subarray(body.length))) return undefined
      const sessionId = formatUuid(body.subarray(0, idBytes))
      return { sessionId, next: write(sessionId, hmac(childKey, body)) }
    },
  }
}
