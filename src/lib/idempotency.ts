import { deriveKey, hmac } from './derive-key.ts'
import { AppError, invalid } from './errors.ts'
import { uuidOf } from './uuid.ts'

/** How a request that creates something says that it may be sent again. */
interface Repeatable {
  /** An id of the client's own. */
  id?: string | undefined
  /** The `Idempotency-Key`. */
  key?: string | undefined
  /** What the request says, as text; asked for only with a key. */
  request: () => string
}

/** What a request creates, or has created when it was sent before. */
export interface Creation {
  id: string
  /** Whether something may have this id already. */
  mayExist: boolean
  /** Of a request with a key: what else it must say when it comes again. Null for an id of the client's own. */
  requestHash: string | null
}

/**
 * The ids of what requests create. That of a key is an HMAC of user and key, so the primary key allows one creation;
 * `purpose` keeps the keys of one kind from those of another.
 */
export function createIdempotency(secretKey: string, purpose: string) {
  const secret = deriveKey(secretKey, purpose)

  /** Throws `validation_failed` when there are both an id and a key. */
  return function identify(userId: string, { id, key, request }: Repeatable): Creation {
    if (id !== undefined && key !== undefined) {
      const msg = 'Use either id or Idempotency-Key'
      throw invalid({ loc: ['body', 'id'], msg, type: 'not_combinable' })
    }
    if (id !== undefined) return { id: id.toLowerCase(), mayExist: true, requestHash: null }
    if (key === undefined) return { id: Bun.randomUUIDv7(), mayExist: false, requestHash: null }
    const requestHash = hmac(secret, request()).toString('base64url')
    return { id: uuidOf(`${userId}\0${key}`, secret), mayExist: true, requestHash }
  }
}

/** What was created with the id or key is in the trash or gone: `id_used` or `idempotency_key_used`. */
export const alreadyUsed = ({ requestHash }: Creation) =>
  new AppError(requestHash === null ? 'id_used' : 'idempotency_key_used')

/** The key came with another request before. */
export const keyReused = () => {
  const msg = 'Sent before, with another body'
  const problem = { loc: ['header', 'idempotency-key'], msg, type: 'idempotency_key_reused' }
  return new AppError('idempotency_key_reused', { detail: [problem] })
}
