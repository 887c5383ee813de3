import { randomInt } from 'node:crypto'

const prefix = 'todo_pat_'
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 190 bits. */
const secretLength = 32
/** Enough for 32 bits. */
const checksumLength = 6

/** A new API token: a prefix that scanners find, a secret, and a checksum. */
export function newApiToken(): string {
  const secret = Array.from({ length: secretLength }, () => alphabet[randomInt(alphabet.length)])
  const body = prefix + secret.join('')
  return body + checksum(body)
}

/** Whether a bearer token is meant as an API token: no JWT begins like this. */
export const isApiToken = (token: string): boolean => token.startsWith(prefix)

/** Whether an API token is written correctly; it may still be unknown. */
export function isWellFormed(token: string): boolean {
  const body = token.slice(0, -checksumLength)
  return body + checksum(body) === token
}

/** Hides every API token in a text, also one with a typing mistake. */
export const maskApiTokens = (text: string): string => text.replace(/todo_pat_\w+/g, 'todo_pat_********')

/** The CRC-32 (of zlib) in base 62. */
function checksum(body: string): string {
  let text = ''
  let rest = Bun.hash.crc32(body)
  for (let i = 0; i < checksumLength; i++) {
    text = alphabet[rest % alphabet.length] + text
    rest = Math.floor(rest / alphabet.length)
  }
  return text
}
