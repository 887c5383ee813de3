import { expect, test } from 'bun:test'
import { createClientOf } from '../src/http/client.ts'
import { createClientAddress, networkOf, parseNetwork } from '../src/lib/client-address.ts'

const addressOf = createClientAddress(['10.0.0.0/8', 'fd00::/8'].map(parseNetwork))

test.each([
  ['203.0.113.1', '203.0.113.1'],
  ['203.0.113.1:5678', '203.0.113.1'],
  ['2001:db8::5', '2001:db8::5'],
  ['[2001:db8::5]', '2001:db8::5'],
  ['[2001:db8::5]:99', '2001:db8::5'],
  ['::ffff:203.0.113.1', '203.0.113.1'],
  ['198.51.100.1, 203.0.113.1:80, 10.1.1.1:443, [fd00::1]:443', '203.0.113.1'],
])('behind a trusted proxy, X-Forwarded-For: %s comes from %s', (forwardedFor, address) => {
  expect(addressOf('10.0.0.1', forwardedFor)).toBe(address)
  expect(addressOf('fd00::1', forwardedFor)).toBe(address)
})

test.each([
  'garbage',
  '',
  '1',
  '0x7f000001',
  '010.0.0.1',
  '203.0.113.1:',
  '203.0.113.1:port',
  '[::1]x',
  '[203.0.113.1',
])('what stands left of %p, which is no address, may be forged and is not believed', hop => {
  expect(addressOf('10.0.0.1', `203.0.113.66, ${hop}`)).toBe('10.0.0.1')
})

test.each([
  ['192.0.2.7', '192.0.2.8'],
  ['2001:db8::7', '2001:db8::8'],
])('of a single trusted address %s the one beside it is not trusted', (trusted, beside) => {
  const addressOf = createClientAddress([parseNetwork(trusted)])
  expect(addressOf(trusted, '203.0.113.1')).toBe('203.0.113.1')
  expect(addressOf(beside, '203.0.113.1')).toBe(beside)
})

test.each(['10.0.0.0/', '10.0.0.0/x', '10.0.0/8', '10.0.0.0/33'])('%s is no network', text => {
  expect(() => parseNetwork(text)).toThrow()
})

test('a peer that is no trusted proxy is the client, whatever it forwards', () => {
  expect(addressOf('203.0.113.9', '198.51.100.1')).toBe('203.0.113.9')
  expect(addressOf('10.0.0.1', null)).toBe('10.0.0.1')
  expect(addressOf(null, '198.51.100.1')).toBeNull()
})

test('of a header without an end the last twenty addresses count', () => {
  const through = (proxies: number) => ['203.0.113.1', ...Array(proxies).fill('10.1.1.1')].join(', ')
  expect(addressOf('10.0.0.1', through(19))).toBe('203.0.113.1')
  expect(addressOf('10.0.0.1', through(20))).toBe('10.1.1.1')
})

test('a proxy that reaches a dual-stack socket by IPv4 is recognized', () => {
  expect(addressOf('::ffff:10.0.0.1', '203.0.113.1')).toBe('203.0.113.1')
})

test('an IPv6 address counts with its /64, an IPv4 address alone, in either form', () => {
  expect(networkOf('2001:db8:1:2::1')).toBe(networkOf('2001:db8:1:2:ffff::9'))
  expect(networkOf('2001:db8:1:2::1')).not.toBe(networkOf('2001:db8:1:3::1'))
  expect(networkOf('::ffff:203.0.113.1')).toBe('203.0.113.1')
  expect(networkOf('203.0.113.1')).not.toBe(networkOf('203.0.113.2'))
})

test('of a request are known the address, the user agent, and when the client hangs up', () => {
  const client = new AbortController()
  const headers = { 'user-agent': 'curl', 'x-forwarded-for': '203.0.113.1' }
  const of = createClientOf(
    ['10.0.0.0/8'],
    () => '10.0.0.1',
  )(new Request('http://x/', { headers, signal: client.signal }))
  expect(of).toMatchObject({ ip: '203.0.113.1', userAgent: 'curl', signal: { aborted: false } })
  client.abort()
  expect(of.signal.aborted).toBe(true)
})
