import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { Elysia } from 'elysia'
import { reportUntrustedProxy } from '../src/http/client.ts'
import { createLog } from '../src/telemetry/log.ts'
import { type Service, startService } from './support/harness.ts'

const forwarded = { headers: { 'x-forwarded-for': '203.0.113.7' } }
const reports = (api: Service) => api.logs().filter(({ msg }) => msg === 'x-forwarded-for ignored')

describe('a service without TRUSTED_PROXIES', () => {
  let api: Service
  beforeAll(async () => {
    api = await startService('embedded')
  }, 30_000)
  afterAll(() => api?.stop())

  test('logs once that X-Forwarded-For is ignored, and from which address it came', async () => {
    await api.get('/health')
    expect(reports(api)).toEqual([])

    for (const path of ['/health', '/tasks', '/nowhere']) await api.get(path, forwarded)

    expect(reports(api)).toMatchObject([
      { level: 'warn', peer: '127.0.0.1', remedy: 'if this is your proxy, add it to TRUSTED_PROXIES' },
    ])
  })
})

test('a trusted proxy that comes first does not hide one that is not trusted', async () => {
  const lines: string[] = []
  const log = createLog({ level: 'warn', pretty: false, write: text => void lines.push(text) })
  let peer = ''
  const app = new Elysia().use(reportUntrustedProxy(['10.0.0.0/8'], () => peer, log)).get('/', () => '')
  const forward = () => app.handle(new Request('http://localhost', forwarded))

  // The second one as a dual-stack socket names it.
  for (const address of ['10.0.0.1', '::ffff:10.0.0.1', '192.0.2.1']) {
    peer = address
    await forward()
  }

  expect(lines.map(line => JSON.parse(line).peer)).toEqual(['192.0.2.1'])
})

describe.each([
  ['127.0.0.0/8', 0],
  ['10.0.0.0/8', 1],
])('with TRUSTED_PROXIES=%s', (TRUSTED_PROXIES, count) => {
  let api: Service
  beforeAll(async () => {
    api = await startService('embedded', { TRUSTED_PROXIES })
  }, 30_000)
  afterAll(() => api?.stop())

  test(`X-Forwarded-For from 127.0.0.1 is reported ${count} times`, async () => {
    await api.get('/tasks', forwarded)
    expect(reports(api)).toHaveLength(count)
  })
})
