import { expect, test } from 'bun:test'
import { createPasswords } from '../src/modules/auth/password-hash.ts'
import { leastCpuMs, unlike } from './support/cpu.ts'

const passwords = (atOnce = 1, waiting = 10, cost = 4) => createPasswords({ cost, atOnce, waiting })
const from = (ip: string, signal = new AbortController().signal) => ({ ip, signal })
const hashOf = (password: string, cost: number) => Bun.password.hash(password, { algorithm: 'bcrypt', cost })

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
    const hash = await hashOf('x', 4)
    expect(await verify(password, hash)).toBe(false)
    expect(await verify(password, undefined)).toBe(false)
  },
)

test('an unknown address has a hash that matches nothing, not even what stands in for an unusable password', async () => {
  expect(await passwords().verify('x', undefined)).toBe(false)
})

test('a hash of another cost than the configured one matches, and is to be renewed', async () => {
  const { verify, isOutdated } = passwords(1, 10, 5)
  for (const cost of [4, 5, 6]) {
    const hash = await hashOf('correct horse', cost)
    expect(await verify('correct horse', hash)).toBe(true)
    expect(await verify('correct horsf', hash)).toBe(false)
    expect([cost, isOutdated(hash)]).toEqual([cost, cost !== 5])
  }
})

test.each(['2a', '2b', '2y'])('a hash of the kind %s matches, and need not be renewed', async kind => {
  const { verify, isOutdated } = passwords()
  const hash = (await hashOf('correct horse', 4)).replace('2b', kind)

  expect(await verify('correct horse', hash)).toBe(true)
  expect(isOutdated(hash)).toBe(false)
})

test('a wrong password takes as long for an unknown address as for a hash of a lower cost, or a damaged one', async () => {
  const cost = 8
  const { verify } = passwords(1, 10, cost)
  const hashes = {
    configured: await hashOf('correct horse', cost),
    unknown: undefined,
    cheaper: await hashOf('correct horse', cost - 1),
    'much cheaper': await hashOf('correct horse', 4),
    damaged: 'not a hash',
    'damaged inside': `$2b$08$${'!'.repeat(53)}`,
  }
  const wrong = (hash: string | undefined, password: string) => async () =>
    expect(await verify(password, hash)).toBe(false)

  const least = await leastCpuMs(
    {
      ...Object.fromEntries(Object.entries(hashes).map(([name, hash]) => [name, wrong(hash, 'wrong horse')])),
      'an empty password': wrong(hashes.configured, ''),
      'a long password': wrong(hashes.cheaper, 'x'.repeat(100)),
    },
    6,
  )

  expect(unlike('configured', least)).toEqual([])
})

test('a fixed number is hashed at a time, a fixed number waits, and the next one is turned away', async () => {
  const { hash } = passwords(1, 3, 8)
  const done: number[] = []
  const one = (i: number) => hash('correct horse').then(() => done.push(i))

  const results = await Promise.allSettled(Array.from({ length: 6 }, (_, i) => one(i)))

  expect(results.map(result => result.status)).toEqual([
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'rejected',
    'rejected',
  ])
  expect(done).toEqual([0, 1, 2, 3])
  expect((results[5] as PromiseRejectedResult).reason).toMatchObject({ code: 'unavailable', status: 503 })
  expect(await hash('again')).toStartWith('$2b$08$')
})

test('addresses take turns, and the whole /64 of an IPv6 address is one', async () => {
  const { hash } = passwords(1, 10)
  const done: string[] = []
  const addresses = ['2001:db8::1', '2001:db8::2', '2001:db8::3', '203.0.113.1', '203.0.113.1', '203.0.113.2']
  await Promise.all(addresses.map(ip => hash('correct horse', from(ip)).then(() => done.push(ip))))

  expect(done).toEqual([
    '2001:db8::1',
    '203.0.113.1',
    '203.0.113.2',
    '2001:db8::2',
    '203.0.113.1',
    '2001:db8::3',
  ])
})

test('an address has half of the places at most, the next one half of the rest, and the service all', async () => {
  const { hash } = passwords(1, 8)
  const refusedOf = (client?: ReturnType<typeof from>) =>
    Promise.allSettled(Array.from({ length: 9 }, () => hash('correct horse', client))).then(
      outcomes => outcomes.filter(({ status }) => status === 'rejected').length,
    )
  const refused = await Promise.all([
    refusedOf(from('203.0.113.1')),
    refusedOf(from('203.0.113.2')),
    refusedOf(),
  ])

  // One of the first is hashed at once.
  expect(refused).toEqual([9 - 1 - 4, 9 - 2, 9 - 2])
})

test('a client that hangs up leaves the queue, and the others move up', async () => {
  const { hash, verify, stats } = passwords(1, 2, 8)
  const gone = new AbortController()
  const first = hash('correct horse')
  const second = verify('correct horse', undefined, from('203.0.113.1', gone.signal))
  const third = hash('correct horse', from('203.0.113.2'))
  expect(stats()).toEqual({ running: 1, waiting: 2 })

  gone.abort()

  expect(stats()).toEqual({ running: 1, waiting: 1 })
  await expect(second).rejects.toMatchObject({ code: 'bad_request' })
  const fourth = hash('correct horse')
  expect((await Promise.all([first, third, fourth])).length).toBe(3)
  expect(stats()).toEqual({ running: 0, waiting: 0 })
  await expect(hash('correct horse', from('203.0.113.1', gone.signal))).rejects.toMatchObject({
    code: 'bad_request',
  })
  expect(stats()).toEqual({ running: 0, waiting: 0 })
})

test('a hash that is damaged or not of bcrypt matches nothing', async () => {
  const other = await Bun.password.hash('correct horse', {
    algorithm: 'argon2id',
    memoryCost: 8,
    timeCost: 1,
  })
  for (const hash of ['not a hash', other])
    expect(await passwords().verify('correct horse', hash)).toBe(false)
})
