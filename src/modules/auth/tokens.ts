import { jwt } from '@elysiajs/jwt'
import type { Config } from '../../config/config.ts'
import { decodeBase64url } from '../../lib/base64url.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'

export type Tokens = ReturnType<typeof createTokens>

interface TokenSettings {
  secretKey: string
  algorithm: Config['algorithm']
  lifetimeSeconds: number
}

/** Access tokens: JWTs (RFC 7519) that name a user (`sub`) and one of that user's sessions (`sid`). */
export function createTokens({ secretKey, algorithm, lifetimeSeconds }: TokenSettings) {
  const { accessToken } = jwt({ name: 'accessToken', secret: secretKey, alg: algorithm }).decorator

  return {
    lifetimeSeconds,

    sign(sub: string, sid: string): Promise<string> {
      const exp = Math.floor(Date.now() / 1000) + lifetimeSeconds
      return accessToken.sign({ sub, sid, exp })
    },

    /** The user, the session and the expiry (seconds since 1970) of a token that we signed and that has not expired. */
    async verify(token: string) {
      // `jose` decodes other texts of the signature, too.
      if (!decodeBase64url(token.slice(token.lastIndexOf('.') + 1))) return undefined
      // Without `algorithms` every HMAC would be accepted; without `requiredClaims`, tokens that never expire.
      const claims = await accessToken.verify(token, {
        algorithms: [algorithm],
        requiredClaims: ['sub', 'sid', 'exp'],
      })
      if (!claims || typeof claims.sub !== 'string' || typeof claims.sid !== 'string') return undefined
      const { sub, sid, exp } = claims
      return isUuid(sub) && isUuid(sid) ? { sub: sub as UserId, sid, exp: exp as number } : undefined
    },
  }
}
