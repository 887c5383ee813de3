import { afterAll, beforeAll, describe } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Env, parseConfig } from '../../src/config/config.ts'
import type { Driver } from '../../src/db/driver.ts'
import type { UserId } from '../../src/lib/user-id.ts'
import { serve } from '../../src/server/start.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { addEmbeddedDatabase, privateDatabase } from './template.ts'

export type DatabaseKind = 'postgres' | 'embedded'

/** Settings of every service under test: any port, a cheap hash, and nothing from the machine's environment. */
export const testSettings = {
  ENVIRONMENT: 'test',
  PORT: '0',
  BCRYPT_COST: '4',
  LOGIN_LIMIT: '0',
  REGISTER_LIMIT: '0',
  LOGIN_FAILURE_LIMIT: '0',
  SECRET_KEY: 'test-secret-test-secret-test-secret-0123',
} satisfies Env

export interface Answer<Body = any> {
  status: number
  headers: Headers
  /** Parsed JSON; the text when it is none; `undefined` when there is nothing. */
  body: Body
}

export interface Sent {
  token?: string | undefined
  json?: unknown
  form?: Record<string, string>
  /** Sent as it is. */
  raw?: string | Uint8Array<ArrayBuffer> | ReadableStream
  headers?: Record<string, string>
}

/** A user who has an account and is signed in. */
export interface User {
  id: UserId
  email: string
  password: string
  token: string
  refreshToken: string
}

/** The calls that a client makes, against whatever listens at `url`. */
export function client(url: string, prefix = '/api/v1') {
  async function request(
    method: string,
    path: string,
    { token, json, form, raw, headers }: Sent = {},
  ): Promise<Answer> {
    const address = path.startsWith('http')
      ? path
      : `${url}${path.startsWith('/health') || path.startsWith('//') ? path.replace('//', '/') : prefix + path}`
    const body = json !== undefined ? JSON.stringify(json) : form ? new URLSearchParams(form) : raw
    const response = await fetch(address, {
      method,
      redirect: 'manual',
      headers: {
        ...(json !== undefined && { 'content-type': 'application/json' }),
        ...(token && { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body !== undefined && { body }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, body: parse(text) }
  }

  async function user(
    email = `${crypto.randomUUID()}@example.com`,
    password = 'correct horse',
  ): Promise<User> {
    const made = await request('POST', '/auth/register', { json: { email, password } })
    if (made.status !== 201) throw new Error(`register answered ${made.status}: ${JSON.stringify(made.body)}`)
    const { body } = await request('POST', '/auth/login', { form: { username: email, password } })
    return { id: made.body.id, email, password, token: body.access_token, refreshToken: body.refresh_token }
  }

  return {
    url,
    request,
    get: (path: string, sent?: Sent) => request('GET', path, sent),
    post: (path: string, sent?: Sent) => request('POST', path, sent),
    put: (path: string, sent?: Sent) => request('PUT', path, sent),
    patch: (path: string, sent?: Sent) => request('PATCH', path, sent),
    delete: (path: string, sent?: Sent) => request('DELETE', path, sent),
    /** Registers a new user and signs in. */
    user,
    /** Makes a task and returns it. */
    async task({ token }: { token: string }, json: object = {}) {
      const { status, body } = await request('POST', '/tasks', {
        token,
        json: { title: 'Buy milk', ...json },
      })
      if (status !== 201) throw new Error(`create answered ${status}: ${JSON.stringify(body)}`)
      return body
    },
  }
}

export type Client = ReturnType<typeof client>

export interface Service extends Client {
  kind: DatabaseKind
  /** The service's own database. */
  driver: Driver
  /** Runs SQL on it. */
  sql: Driver['query']
  /** Every line that the service has logged so far, parsed. */
  logs(): Record<string, unknown>[]
  stop(): Promise<void>
}

/**
 * The real service, listening on a port of its own, on a real and private database. `direct`: past the proxy that
 * `TEST_PGBOUNCER` puts in between.
 */
export async function startService(
  kind: DatabaseKind,
  settings: Env = {},
  { direct = false } = {},
): Promise<Service> {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-test-'))
  if (kind === 'embedded') await addEmbeddedDatabase(dataDir)
  const database = kind === 'postgres' ? await privateDatabase() : undefined
  const url = direct ? database?.directUrl : database?.url
  const lines: string[] = []
  const log = createLog({ level: 'debug', pretty: false, write: text => void lines.push(text) })
  const config = parseConfig({ ...testSettings, DATA_DIR: dataDir, DATABASE_URL: url, ...settings })
  const service = await serve(config, log)
  await service.migrated
  return {
    ...client(service.url.replace(/\/$/, '')),
    kind,
    driver: service.driver,
    sql: service.driver.query,
    logs() {
      log.flush()
      return lines
        .join('')
        .split('\n')
        .filter(line => line !== '')
        .map(line => JSON.parse(line))
    },
    async stop() {
      await service.stop('the test is over')
      await database?.drop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

/** The same tests against the service on PostgreSQL and on the embedded database. */
export function onBothDatabases(
  name: string,
  tests: (api: Service) => void,
  settings: Env = {},
  options: { direct?: boolean } = {},
) {
  for (const kind of ['postgres', 'embedded'] as const) {
    describe(`${name} (${kind})`, () => {
      const api = {} as Service
      beforeAll(async () => {
        Object.assign(api, await startService(kind, settings, options))
      }, 30_000)
      afterAll(() => api.stop?.())
      tests(api)
    })
  }
}

function parse(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
