import { afterAll, beforeAll, describe, expect, setSystemTime, test } from 'bun:test'
import type { Browser } from 'playwright-core'
import { chromiumPath, launchChromium } from './support/chromium.ts'
import { type Answer, type Service, startService } from './support/harness.ts'

const preflight = (api: Service, origin: string, headers: string) =>
  api.request('OPTIONS', `${api.url}/api/v1/tasks`, {
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': headers,
    },
  })

const originOf = async (api: Service, origin: string) =>
  (await api.get(`${api.url}/health`, { headers: { origin } })).headers.get('access-control-allow-origin')

describe('a service with one listed origin', () => {
  const listed = 'https://app.example.com'
  let api: Service
  beforeAll(async () => {
    api = await startService('embedded', { FRONTEND_URL: listed })
  }, 30_000)
  afterAll(() => api.stop())

  const refusals = () => api.logs().filter(({ msg }) => msg === 'origin refused')

  test('lets it send any header, and no other origin', async () => {
    const wanted = 'authorization,content-type,traceparent,x-anything'

    const ours = await preflight(api, listed, wanted)
    const other = await preflight(api, 'https://evil.example', wanted)

    expect([ours.status, ours.headers.get('access-control-allow-headers')]).toEqual([204, wanted])
    expect(ours.headers.get('access-control-allow-credentials')).toBe('true')
    expect(ours.headers.get('access-control-max-age')).toBe('600')
    expect(ours.headers.get('vary')).toBe('Origin, Access-Control-Request-Headers')
    expect(other.headers.get('access-control-allow-origin')).toBeNull()
    expect(other.headers.get('access-control-allow-headers')).not.toContain('x-anything')
  })

  test('lets it use every method, and read every header that a client needs', async () => {
    const list = (answer: Answer, name: string) => answer.headers.get(name)?.split(/, ?/).sort()

    const allowed = list(await preflight(api, listed, 'authorization'), 'access-control-allow-methods')
    const read = await api.get(`${api.url}/health`, { headers: { origin: listed } })

    expect(allowed).toEqual(['DELETE', 'GET', 'HEAD', 'PATCH', 'POST', 'PUT'])
    expect(list(read, 'access-control-expose-headers')).toEqual([
      'etag',
      'link',
      'location',
      'preference-applied',
      'ratelimit',
      'ratelimit-policy',
      'retry-after',
      'www-authenticate',
      'x-request-id',
      'x-total-count',
    ])
  })

  test.each(['http://localhost:5173', 'http://127.0.0.1:3000', 'constructor', 'null'])(
    'refuses %s: only development lets local pages call',
    async origin => {
      expect(await originOf(api, origin)).toBeNull()
    },
  )

  test('names a refused origin in the log, once a minute', async () => {
    const origin = 'https://refused.example'
    const named = () => refusals().filter(line => line.origin === origin)
    try {
      for (const [at, lines] of [
        ['2030-01-01T00:00:01Z', 1],
        ['2030-01-01T00:00:58Z', 1],
        ['2030-01-01T00:01:02Z', 2],
      ] as const) {
        setSystemTime(new Date(at))
        for (let i = 0; i < 3; i++) await originOf(api, origin)
        expect(named()).toHaveLength(lines)
      }
    } finally {
      setSystemTime()
    }
    expect(named()[0]).toMatchObject({
      level: 'warn',
      remedy: 'if its pages may call, add it to FRONTEND_URL',
    })
  })

  test('names no origin that cannot be added', async () => {
    await originOf(api, 'null')
    expect(refusals().find(({ origin }) => origin === 'null')!.remedy).not.toContain('FRONTEND_URL')
  })

  test('names at most the first 200 characters of an origin', async () => {
    const origin = `https://${'x'.repeat(300)}.example`
    const before = refusals().length
    for (const end of ['', '.com']) await originOf(api, origin + end)

    expect(refusals().slice(before)).toMatchObject([{ origin: origin.slice(0, 200) }])
  })

  test('names no allowed origin, and not its own', async () => {
    const before = refusals().length
    await originOf(api, listed)
    // Nor is that allowed: a page that came without TLS would be, too.
    expect(await originOf(api, api.url)).toBeNull()
    // A proxy on the page's origin that sets Host: the browser knows that the origin is the same.
    for (const site of ['same-origin', 'cross-site'])
      await api.get('/health', { headers: { origin: `https://${site}.example`, 'sec-fetch-site': site } })
    expect(refusals().slice(before)).toMatchObject([{ origin: 'https://cross-site.example' }])
  })

  test('names at most 100 origins a minute, however many call', async () => {
    try {
      setSystemTime(new Date('2031-01-01T00:00:00Z'))
      const before = refusals().length
      for (let i = 0; i < 150; i++) await originOf(api, `https://${i}.example`)
      expect(refusals().length - before).toBe(100)
    } finally {
      setSystemTime()
    }
  })
})

describe('a service with listed origins of apps and extensions', () => {
  const listed = ['capacitor://localhost', 'tauri://localhost', 'chrome-extension://abcdefghijklmnop']
  let api: Service
  beforeAll(async () => {
    api = await startService('embedded', { FRONTEND_URL: `HTTPS://App.Example:443/, ${listed.join()}` })
  }, 30_000)
  afterAll(() => api.stop())

  test.each(['https://app.example', ...listed])('lets %s call', async origin => {
    const allowed = await preflight(api, origin, 'authorization,content-type')

    expect(allowed.status).toBe(204)
    expect(allowed.headers.get('access-control-allow-origin')).toBe(origin)
    expect(allowed.headers.get('access-control-allow-credentials')).toBe('true')
    expect(await originOf(api, origin)).toBe(origin)
    const assistant = await api.post(`${api.url}/mcp`, { json: {}, headers: { origin } })
    expect(assistant.status).toBe(401)
  })

  test.each([
    'capacitor://localhost:80',
    'capacitor://localhost.evil.example',
    'http://localhost',
    'ionic://localhost',
    'chrome-extension://ponmlkjihgfedcba',
    'file://',
    'null',
  ])('refuses %s', async origin => {
    expect(await originOf(api, origin)).toBeNull()
    expect((await api.post(`${api.url}/mcp`, { json: {}, headers: { origin } })).status).toBe(403)
  })
})

describe('a service in development', () => {
  let api: Service
  beforeAll(async () => {
    api = await startService('embedded', {
      ENVIRONMENT: 'development',
      BCRYPT_COST: '12',
      SECRET_KEY: crypto.getRandomValues(Buffer.alloc(32)).toString('hex'),
    })
  }, 30_000)
  afterAll(() => api.stop())

  test.each([
    ['http://localhost', true],
    ['http://localhost:5173', true],
    ['http://127.0.0.1:4321', true],
    ['https://localhost:8443', true],
    ['http://localhost.evil.example', false],
    ['http://localhost:5173.evil.example', false],
    ['http://localhost:5173@evil.example', false],
    ['http://127.0.0.1.evil.example:80', false],
    ['http://192.168.0.1:3000', false],
    ['http://127x0x0x1:3000', false],
  ])('lets %s call: %p', async (origin, isAllowed) => {
    expect(await originOf(api, origin)).toBe(isAllowed ? origin : null)
  })
})

if (!chromiumPath) {
  process.stderr.write(
    '\nNOT RUN: the test of CORS in a browser needs Chromium, and there is none in PATH.\n',
  )
}

describe.skipIf(!chromiumPath)('in Chromium', () => {
  let browser: Browser
  let site: Bun.Server<undefined>
  let api: Service
  beforeAll(async () => {
    site = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () =>
        new Response('<!doctype html><title>app</title>', { headers: { 'content-type': 'text/html' } }),
    })
    api = await startService('embedded', { FRONTEND_URL: `http://localhost:${site.port}` })
    browser = await launchChromium()
  }, 60_000)
  afterAll(async () => {
    await browser?.close()
    await api?.stop()
    await site?.stop(true)
  })

  /** What a page at this host sees when it creates a task with the headers of tracing libraries. */
  async function createFrom(host: string, token: string) {
    const page = await browser.newPage()
    await page.goto(`http://${host}:${site.port}/`)
    const seen = await page.evaluate(
      async ([url, token]) => {
        try {
          const response = await fetch(`${url}/api/v1/tasks`, {
            method: 'POST',
            credentials: 'include',
            headers: {
              authorization: `Bearer ${token}`,
              'content-type': 'application/json',
              traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
              'x-requested-with': 'XMLHttpRequest',
              'sentry-trace': '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1',
              baggage: 'sentry-environment=test',
            },
            body: '{"title":"from a page"}',
          })
          return { status: response.status, etag: response.headers.get('etag') }
        } catch (error) {
          return { error: String(error) }
        }
      },
      [api.url, token],
    )
    await page.close()
    return seen
  }

  test('a page of a listed origin calls with the headers of tracing libraries, one of another does not', async () => {
    const { token } = await api.user()

    expect(await createFrom('localhost', token)).toEqual({ status: 201, etag: '"1"' })
    expect(await createFrom('127.0.0.1', token)).toEqual({ error: 'TypeError: Failed to fetch' })

    expect(api.logs()).toContainEqual(
      expect.objectContaining({ msg: 'origin refused', origin: `http://127.0.0.1:${site.port}` }),
    )
    expect((await api.get('/tasks', { token })).body).toHaveLength(1)
  }, 60_000)
})
