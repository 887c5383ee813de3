import { hkdfSync } from 'node:crypto'

/** A key for one purpose, derived from SECRET_KEY (HKDF, RFC 5869). */
export function deriveKey(secretKey: string, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secretKey, '', `todo-api ${purpose}`, 32))
}
