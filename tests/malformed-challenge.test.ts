import { expect, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { startExecutable } from './support/executable.ts'
import { testSettings } from './support/harness.ts'
import { listenOnFreePort } from './support/ports.ts'
import { authentication, startScriptedServer } from './support/scripted-server.ts'
import { until } from './support/until.ts'

test('a server that challenges with nonsense inside TLS is a line in the log, and the service goes on', async () => {
  using server = await startMalformedServer()
  const api = await startExecutable({
    DATABASE_URL: `postgres://todo:hunter2hunter2@127.0.0.1:${server.port}/todo?sslmode=require`,
    ...testSettings,
  })

  await until(() => api.lines.some(line => line.includes('"waiting for the database"')))
  expect(api.lines.map(line => JSON.parse(line).message).join()).toContain('a malformed challenge')

  expect((await api.get('/health/live')).status).toBe(200)
  expect((await api.get('/health/ready')).status).toBe(503)
  expect(api.lines.join('')).not.toContain('hunter2')
  expect(await api.stop()).toBe(0)
})

/** Why no connection to a server comes about, in whose place another one may be; `challenge` answers the first message. */
async function refusalOf(challenge: Buffer): Promise<string> {
  let messages = 0
  using server = await startScriptedServer({
    authenticate: () =>
      [authentication(10, 'SCRAM-SHA-256\0\0'), challenge, authentication(0)][Math.min(messages++, 2)]!,
  })
  const driver = openPostgres({ url: server.url, poolSize: 1 })
  const error = await driver.query('select 1', []).catch(error => error)
  await driver.close()
  let text = ''
  for (let e = error; e instanceof Error; e = e.cause) text += `${e.message}; `
  return text
}

const challenge = (iterations: number) => authentication(11, `r=abcdefgh,s=c2FsdA==,i=${iterations}`)

test('a hundred thousand rounds of hashing are done for a server, and no more', async () => {
  expect(await refusalOf(challenge(100_001))).toContain('too many iterations')
  expect(await refusalOf(challenge(100_000))).toContain('no proof of the server')
})

test('of a message without an end 64 KiB are kept', async () => {
  const endless = Buffer.alloc(65 * 1024)
  endless.write('R')
  endless.writeUInt32BE(1024 * 1024, 1)

  expect(await refusalOf(endless)).toContain('a message without an end')
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
  const insidePort = await listenOnFreePort(inside)
  const outside = createServer(client => {
    client.on('error', () => {})
    client.once('data', () => {
      client.write('S')
      const upstream = connect(insidePort, '127.0.0.1').on('error', () => {})
      client.pipe(upstream).pipe(client)
    })
  })
  return {
    port: await listenOnFreePort(outside),
    [Symbol.dispose]() {
      outside.close()
      inside.close()
    },
  }
}
