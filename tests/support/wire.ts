import { expect } from 'bun:test'
import { connect } from 'node:net'
import { appWithoutDatabase } from '../../src/server/openapi.ts'
import type { Answer } from './harness.ts'

interface RawRequest {
  /** `GET /health`; the rest of the line is added. */
  line: string
  /** Whole lines, without the end of line. */
  headers?: string[]
  body?: string | Uint8Array
  /** Send the body in chunks of this many bytes, without a `Content-Length`. */
  chunkBytes?: number
}

/** Sends a request as it is, over a connection of its own: what `fetch` would correct or refuse. */
export async function send(url: string, request: RawRequest): Promise<Answer> {
  const text = await exchange(url, bytesOf(request))
  const [head = '', ...rest] = text.split('\r\n\r\n')
  const [statusLine = '', ...lines] = head.split('\r\n')
  const headers = new Headers(
    lines.map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
  )
  const body = rest.join('\r\n\r\n')
  const isJson = headers.get('content-type')?.startsWith('application/json') && body !== ''
  return { status: Number(statusLine.split(' ')[1] ?? 0), headers, body: isJson ? JSON.parse(body) : body }
}

/** Writes bytes and returns what comes back until the other side closes, as UTF-8. */
export function exchange(url: string, bytes: Uint8Array, timeoutMs = 10_000): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(Number(port), hostname, () => socket.write(bytes))
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error('no answer in time')))
    socket.on('data', chunk => chunks.push(Buffer.from(chunk)))
    socket.on('error', error =>
      'code' in error && error.code === 'ECONNRESET' ? socket.destroy() : reject(error),
    )
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()))
  })
}

/** A connection on which bytes are sent one after the other, as they are; `received` is what has come back so far, as UTF-8. */
export function openConnection(url: string) {
  const { hostname, port } = new URL(url)
  let received = ''
  const socket = connect(Number(port), hostname)
  socket.on('data', data => {
    received += data
  })
  socket.on('error', () => {})
  const closed = new Promise(resolve => socket.on('close', resolve))
  return {
    write: (bytes: string | Uint8Array) => void socket.write(bytes),
    received: () => received,
    closed,
    close: () => void socket.destroy(),
  }
}

/** A POST whose body is on its way. */
export async function halfSent(url: string, token: string) {
  const connection = openConnection(url)
  connection.write(
    `POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: 20\r\n\r\n{"title":`,
  )
  await Bun.sleep(100)
  return {
    async finish() {
      connection.write('"Buy milk"}')
      await connection.closed
      return connection.received()
    },
  }
}

function bytesOf({ line, headers = [], body = '', chunkBytes }: RawRequest): Uint8Array {
  const content = Buffer.from(body)
  const length = content.length > 0 ? [`Content-Length: ${content.length}`] : []
  const framing = chunkBytes ? ['Transfer-Encoding: chunked'] : length
  const lines = [`${line} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...headers, ...framing, '', '']
  return Buffer.concat([
    Buffer.from(lines.join('\r\n'), 'latin1'),
    chunkBytes ? chunked(content, chunkBytes) : content,
  ])
}

function chunked(content: Buffer, size: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < content.length; at += size) {
    const part = content.subarray(at, at + size)
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'))
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')])
}

/** The one shape of every error, and what its headers must say. */
export function expectError(answer: Answer, status: number, code: string, detail?: unknown) {
  expect(answer.body).toEqual({
    detail: detail ?? expect.anything(),
    code,
    request_id: answer.headers.get('x-request-id'),
    // As far as it can be read; `null` otherwise.
    ...(status === 422 && { body: answer.body.body }),
    // The task or list as it is now.
    ...(status === 412 && { current: answer.body.current }),
    // Only the OAuth 2 calls have them; tests/oauth.test.ts says which.
    ...(answer.body.error && {
      error: expect.stringMatching(/^[a-z_]+$/),
      error_description: expect.stringMatching(/^[\x20-\x7e]+$/),
    }),
  })
  expect(answer.status).toBe(status)
  expect(answer.headers.get('content-type')).toBe('application/json')
  const challenge = answer.headers.get('www-authenticate')
  if (code === 'insufficient_scope')
    expect(challenge).toMatch(/^Bearer error="insufficient_scope", scope="[a-z:]+"$/)
  else expect(challenge).toBe(status === 401 ? 'Bearer' : null)
  if (status === 429 || status === 503) expect(answer.headers.get('retry-after')).toMatch(/^\d+$/)
}

/** Every route of the service. */
export const allRoutes = () =>
  appWithoutDatabase()
    .routes.filter(route => route.method !== 'OPTIONS')
    .map(({ method, path, hooks }) => ({ method, path, hooks }))
