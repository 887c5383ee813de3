import { expect, test } from 'bun:test'
import { createPasswords } from '../src/modules/auth/passwords.ts'

const passwords = (atOnce = 1, waiting = 10) => createPasswords({ cost: 4, atOnce, waiting })

test('a password matches its own hash and no other', async () => {
  const { hash, verify } = passwords()
  const hashed = await hash('correct horse')

  expect(hashed).toMatch(/^\$2b\$04\$/)
  expect(await verify('correct horse', hashed)).toBe(true)
  expect(await verify('correct horsf', hashed)).toBe(false)
})

test.each(['', 'x'.repeat(73), 'ü'.repeat(37)])(
  'a password that bcrypt cannot take never matches (%#)',
  async password => {
    const { verify } = passwords()
    const hash = await Bun.password.hash('x', { algorithm: 'bcrypt', cost: 4 })
    expect(await verify(password, hash)).toBe(false)
    expect(await verify(password, undefined)).toBe(false)
  },
)

test('nobody’s hash matches nothing, not even what stands in for an unusable password', async () => {
  expect(await passwords().verify('x', undefined)).toBe(false)
})

test('so many are hashed at a time, so many wait, and the next one is turned away', async () => {
  const { hash } = createPasswords({ cost: 8, atOnce: 1, waiting: 3 })

  const results = await Promise.allSettled(Array.from({ length: 6 }, () => hash('correct horse')))

  expect(results.map(result => result.status)).toEqual([
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'rejected',
    'rejected',
  ])
  expect((results[5] as PromiseRejectedResult).reason).toMatchObject({ code: 'unavailable', status: 503 })
  expect(await hash('again')).toStartWith('$2b$08$')
})

test('a damaged hash matches nothing', async () => {
  expect(await passwords().verify('correct horse', 'not a hash')).toBe(false)
})
