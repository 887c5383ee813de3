import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { type Service, startService, type User } from './support/harness.ts'
import { until } from './support/until.ts'
import { openConnection } from './support/wire.ts'

const mebibyte = 1024 * 1024
const wholeLength = `Content-Length: ${mebibyte}`
const chunked = 'Transfer-Encoding: chunked'

describe('bodies above 32 KiB', () => {
  let api: Service
  let ada: User
  const open: ReturnType<typeof openConnection>[] = []
  beforeAll(async () => {
    api = await startService('embedded', { TRUSTED_PROXIES: '127.0.0.1/32', LOGIN_LIMIT: '0' })
    ada = await api.user()
  }, 30_000)
  afterEach(() => {
    for (const { close } of open.splice(0)) close()
  })
  afterAll(() => api.stop())

  /** Sends the head of a request whose body does not come. */
  function begin(address: string, framing = wholeLength, path = '/api/v1/tasks/batch') {
    const connection = openConnection(api.url)
    const lines = [`POST ${path} HTTP/1.1`, 'Host: x', `Authorization: Bearer ${ada.token}`, framing]
    connection.write([...lines, `X-Forwarded-For: ${address}`, 'X-Request-Id: mine', '', ''].join('\r\n'))
    open.push(connection)
  }

  const answers = () => open.map(({ received }) => received()).filter(text => text !== '')

  /** The status of a batch of 40 KB that is sent as a whole. */
  async function sendBatch(address: string) {
    const task = { title: 'x', description: 'x'.repeat(2000) }
    const operations = Array.from({ length: 20 }, () => ({ op: 'create', task }))
    const headers = { 'x-forwarded-for': address }
    return (await api.post('/tasks/batch', { token: ada.token, json: { operations }, headers })).status
  }

  test('have 64 MiB together, and an address as much as it leaves to others', async () => {
    // Bun accepts a length that is sent twice.
    begin('192.0.2.1', `${wholeLength}\r\n${wholeLength}`)
    for (let i = 0; i < 16; i++) begin('192.0.2.1')
    for (let i = 0; i < 16; i++) begin('192.0.2.1', chunked)

    await until(() => answers().length > 0, 10)
    const [refused, ...others] = answers()
    expect(others).toEqual([])
    expect(refused).toMatch(/^HTTP\/1\.1 503 /)
    expect(refused).toMatch(/^access-control-allow-credentials: true/im)
    expect(refused).toMatch(/^connection: close/im)
    expect(refused).toMatch(/^retry-after: 2/im)
    expect(refused).toContain('"request_id":"mine"')
    expect(api.logs()).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        msg: 'request refused',
        message: 'there is no room for another large body',
      }),
    )

    expect([await sendBatch('192.0.2.1'), await sendBatch('192.0.2.2')]).toEqual([503, 200])
    const json = { title: 'x', unknown: 'x'.repeat(32 * 1024 - '{"title":"x","unknown":""}'.length) }
    const headers = { 'x-forwarded-for': '192.0.2.1' }
    expect((await api.post('/tasks', { token: ada.token, json, headers })).status).toBe(201)
    open[5]!.close()
    await until(async () => (await sendBatch('192.0.2.1')) === 200)
  }, 30_000)

  test('that are chunked are counted until their route reads them, if it keeps no more than 32 KiB', async () => {
    for (let i = 0; i < 100; i++) {
      begin('192.0.2.1', chunked, '/api/v1/auth/login')
      await Bun.sleep(2)
    }

    expect(answers()).toEqual([])
    expect(await sendBatch('192.0.2.1')).toBe(200)
  })

  test('that are too large count as much as the largest', async () => {
    begin('192.0.2.1', 'Content-Length: 999999999')

    await until(() => answers().length > 0, 10)
    expect(answers()[0]).toMatch(/^HTTP\/1\.1 413 /)
  })
})
