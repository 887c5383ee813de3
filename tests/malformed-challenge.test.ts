import { expect, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { startExecutable } from './support/executable.ts'
import { authentication } from './support/scripted-server.ts'
import { until } from './support/until.ts'

test('a server that challenges with nonsense inside TLS is a line in the log, and the service goes on', async () => {
  using server = await startMalformedServer()
  const api = await startExecutable({
    DATABASE_URL: `postgres://todo:hunter2hunter2@127.0.0.1:${server.port}/todo?sslmode=require`,
    ENVIRONMENT: 'test',
    SECRET_KEY: 'test-secret-test-secret-test-secret-0123',
  })

  await until(() => api.lines.some(line => line.includes('"waiting for the database"')))
  expect(api.lines.map(line => JSON.parse(line).message).join()).toContain('a malformed challenge')

  expect((await api.get('/health/live')).status).toBe(200)
  expect((await api.get('/health/ready')).status).toBe(503)
  expect(api.lines.join('')).not.toContain('hunter2')
  expect(await api.stop()).toBe(0)
})

/** A server that agrees to TLS and then challenges without a salt, for which postgres.js alone would throw where nothing catches it. */
async function startMalformedServer() {
  const pem = await Bun.file(join(import.meta.dir, 'fixtures/tls.pem')).text()
  const inside = createTlsServer({ key: pem, cert: pem }, socket => {
    socket.on('error', () => {})
    let messages = 0
    socket.on('data', () => {
      socket.write(
        messages++ === 0 ? authentication(10, 'SCRAM-SHA-256\0\0') : authentication(11, 'malformed'),
      )
    })
  })
  await new Promise<void>(resolve => inside.listen(0, '127.0.0.1', resolve))
  const outside = createServer(client => {
    client.on('error', () => {})
    client.once('data', () => {
      client.write('S')
      const upstream = connect(portOf(inside), '127.0.0.1').on('error', () => {})
      client.pipe(upstream).pipe(client)
    })
  })
  await new Promise<void>(resolve => outside.listen(0, '127.0.0.1', resolve))
  return {
    port: portOf(outside),
    [Symbol.dispose]() {
      outside.close()
      inside.close()
    },
  }
}

function portOf(server: { address(): unknown }): number {
  return (server.address() as { port: number }).port
}
