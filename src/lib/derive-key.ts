import { hkdfSync } from 'node:crypto'

/** A key for one purpose, derived from SECRET_KEY (HKDF, RFC 5869). */
export function deriveKey(secretKey: string, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secretKey, '', `todo-api ${purpose}`, 32))
}

/** HMAC-SHA-256 (RFC 2104), 32 bytes, under a key from `deriveKey`. */
export const hmac = (key: Uint8Array, data: string | Uint8Array): Buffer =>
  new Bun.CryptoHasher('sha256', key).update(data).digest()
