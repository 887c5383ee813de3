import { hmac } from './derive-key.ts'

export const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether a string can be compared with a `uuid` column (RFC 9562); PostgreSQL fails on anything else. */
export const isUuid = (value: string) => uuidPattern.test(value)

/** It comes before every other one, and is none of ours. */
export const nilUuid = '00000000-0000-0000-0000-000000000000'

/** Whether a client may choose it as the id of something new: any UUID but nil and max, which mean "none" (RFC 9562, 5.9). */
export const isOwnId = (value: string) => isUuid(value) && !/^(0|-)+$|^(f|-)+$/i.test(value)

/** A UUID derived from a text with a secret key (version 8 of RFC 9562, from an HMAC-SHA256). */
export function uuidOf(text: string, key: Uint8Array): string {
  const bytes = hmac(key, text).subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return formatUuid(bytes)
}

/** The 16 bytes of a UUID. */
export const uuidBytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex')

/** The 16 bytes of a UUID as text. */
export const formatUuid = (bytes: Buffer) =>
  bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
