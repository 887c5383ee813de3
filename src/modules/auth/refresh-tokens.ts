import { createHmac, timingSafeEqual } from 'node:crypto'
import { deriveKey } from '../../lib/derive-key.ts'

export type RefreshTokens = ReturnType<typeof createRefreshTokens>

const idBytes = 16
const secretBytes = 32
const sealBytes = 16

/**
 * Refresh tokens: the session's id, 256 secret bits and a seal, in base64url. Opaque to clients.
 *
 * The first secret of a session is random; each later one is the HMAC of the one before it. So two requests with one
 * token (two tabs, a lost answer) get the same next token, although only hashes are stored. The seal tells an old
 * token of ours, which ends its session, from an invented one, which must not.
 */
export function createRefreshTokens(secretKey: string) {
  const childKey = deriveKey(secretKey, 'refresh token: next')
  const sealKey = deriveKey(secretKey, 'refresh token: seal')

  function write(sessionId: string, secret: Uint8Array): string {
    const body = Buffer.concat([Buffer.from(sessionId.replaceAll('-', ''), 'hex'), secret])
    return Buffer.concat([body, seal(body)]).toString('base64url')
  }

  const seal = (body: Uint8Array) =>
    createHmac('sha256', sealKey).update(body).digest().subarray(0, sealBytes)

  return {
    /** The first token of a session. */
    first: (sessionId: string) => write(sessionId, crypto.getRandomValues(new Uint8Array(secretBytes))),

    /** The session of a token that we made, and the token that follows it; `undefined` for anything else. */
    read(token: string): { sessionId: string; next: string } | undefined {
      const bytes = Buffer.from(token, 'base64url')
      if (bytes.length !== idBytes + secretBytes + sealBytes) return undefined
      // Buffer also reads `=`, spaces and `+/`. Their hash is another one, which would look like an old token's.
      if (bytes.toString('base64url') !== token) return undefined
      const body = bytes.subarray(0, idBytes + secretBytes)
      if (!timingSafeEqual(seal(body), bytes.subarray(body.length))) return undefined
      const sessionId = formatUuid(body.subarray(0, idBytes).toString('hex'))
      return { sessionId, next: write(sessionId, createHmac('sha256', childKey).update(body).digest()) }
    },

    /** What the database keeps of a token: SHA-256, hex. */
    hash: (token: string) => new Bun.CryptoHasher('sha256').update(token).digest('hex'),
  }
}

const formatUuid = (hex: string) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
