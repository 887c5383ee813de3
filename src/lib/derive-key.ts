import { hkdfSync } from 'node:crypto'

/** A key for one purpose, from the one secret (HKDF, RFC 5869). */
export function deriveKey(secretKey: string, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secretKey, '', `todo-api ${purpose}`, 32))
}
