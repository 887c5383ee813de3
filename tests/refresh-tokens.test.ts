import { expect, test } from 'bun:test'
import { deriveKey } from '../src/lib/derive-key.ts'
import { createRefreshTokens } from '../src/modules/auth/refresh-tokens.ts'

const secretKey = '58b49a2cb5ab63ce16b08e9c6b9fcee5'
const sessionId = '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e'

test('a token is a session’s id, 256 secret bits and a seal of 128, and leads to the next one', () => {
  const { first, read } = createRefreshTokens(secretKey)
  const token = first(sessionId)

  expect(Buffer.from(token, 'base64url')).toHaveLength(16 + 32 + 16)
  expect(read(token)).toEqual({ sessionId, next: expect.stringMatching(/^[\w-]{86}$/) })
  expect(read(token)!.next).toBe(read(token)!.next)
  expect(read(read(token)!.next)!.sessionId).toBe(sessionId)
  expect(first(sessionId)).not.toBe(token)
})

test('a token that was given out stays valid, and leads to the same next one: no release signs users out', () => {
  const given = 'AZqcPVLgfRuMdz9KW2x9jgcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHZjGWVXeBmJdItwCILAwOSg'
  expect(createRefreshTokens(secretKey).read(given)).toEqual({
    sessionId,
    next: 'AZqcPVLgfRuMdz9KW2x9joC907ZKGRjHbWv-OBk0VJbDjckzpi2TWdODs_j2x_YAK-tsK2rHkUapzjjW5kkbxw',
  })
})

test('a token does not hold what the secret of the next one begins with', () => {
  const { first, read } = createRefreshTokens(secretKey)
  const token = first(sessionId)
  const seal = Buffer.from(token, 'base64url').subarray(48)

  expect(Buffer.from(read(token)!.next, 'base64url').subarray(16, 32)).not.toEqual(seal)
})

test('a token with one bit changed anywhere is none of ours', () => {
  const { first, read } = createRefreshTokens(secretKey)
  const bytes = Buffer.from(first(sessionId), 'base64url')
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes)
    changed[bit >> 3]! ^= 1 << (bit & 7)
    expect([bit, read(changed.toString('base64url'))]).toEqual([bit, undefined])
  }
})

test('a token of another secret key is none of ours, nor is one cut or longer', () => {
  const { first, read } = createRefreshTokens(secretKey)
  const token = first(sessionId)

  expect(createRefreshTokens(`${secretKey}x`).read(token)).toBeUndefined()
  for (const other of ['', token.slice(0, -1), token.slice(0, 64), `${token}A`, `${token}${token}`]) {
    expect(read(other)).toBeUndefined()
  }
})

test('each purpose has a key of its own, and so has each secret', () => {
  const keys = [
    deriveKey(secretKey, 'refresh token: next'),
    deriveKey(secretKey, 'refresh token: seal'),
    deriveKey(secretKey, 'cursor'),
    deriveKey(`${secretKey}x`, 'cursor'),
  ].map(key => Buffer.from(key).toString('hex'))

  for (const key of keys) expect(key).toHaveLength(64)
  expect(new Set(keys).size).toBe(keys.length)
  expect(deriveKey(secretKey, 'cursor')).toEqual(deriveKey(secretKey, 'cursor'))
})
