import { expect, test } from 'bun:test'
import { Elysia, t } from 'elysia'
import { SignJWT, UnsecuredJWT } from 'jose'
import { body } from '../src/http/body.ts'
import { allResponses } from '../src/http/error-responses.ts'
import { query } from '../src/http/query.ts'
import { requireUser } from '../src/http/require-user.ts'
import { AppError, type ErrorCode } from '../src/lib/errors.ts'
import { type Scope, sessionScopes, type TokenScope, tokenScopes } from '../src/lib/scope.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { makeApiToken } from './support/api-token.ts'
import { onBothDatabases, testSettings, type User } from './support/harness.ts'
import { requiredScope } from './support/required-scopes.ts'
import { allRoutes, expectError, send } from './support/wire.ts'

/** Everything that may be called without a token. */
const publicRoutes = [
  'GET /',
  'GET /docs',
  'GET /docs/assets/:version/:file',
  'GET /docs/guides',
  'GET /docs/guides/:name',
  'GET /health',
  'GET /health/live',
  'GET /health/ready',
  'GET /openapi.json',
  'GET /swagger',
  'GET /swagger/json',
  ...['/api', '/api/v1'].flatMap(prefix =>
    ['login', 'refresh', 'register', 'revoke'].map(name => `POST ${prefix}/auth/${name}`),
  ),
]

const guarded = allRoutes().filter(({ method, path }) => !publicRoutes.includes(`${method} ${path}`))

/** What to do about an error that a route answers and does not declare. */
const cure = (status: number, code: string) =>
  ({
    401: 'put `.use(requireUser(…))` before the route',
    413: 'put `.use(body())` before the route',
    415: 'put `.use(body())` before the route',
    422: 'put `.use(query())` or, if it has a body, `.use(body())` before the route',
  })[status] ?? `add \`...errors('${code}')\` to the \`response\` of the route`

test('a route declares the errors of the plugins that it is behind, without naming them', () => {
  const app = new Elysia()
    .use(requireUser(() => ({ id: 'ada' as UserId, sessionId: 'laptop', scopes: sessionScopes }), 'session'))
    .get('/plain', () => '')
    .use(query())
    .get('/search', () => '', { query: t.Object({ limit: t.Integer() }) })
    .use(body())
    .post('/', () => '', { body: t.Object({}), response: { 200: t.String() } })

  expect(app.routes.map(({ hooks }) => Object.keys(allResponses(hooks.response)).join())).toEqual([
    '401,403,422,500,503',
    '401,403,422,500,503',
    '200,401,403,413,415,422,500,503',
  ])
})

const secretKey = testSettings.SECRET_KEY

onBothDatabases(
  'every route',
  api => {
    /** The answers of every guarded route to these headers; nothing in the request but them is right. */
    async function answers(...headers: string[]) {
      return Promise.all(
        guarded.map(({ method, path }) =>
          send(api.url, {
            line: `${method === 'HEAD' ? 'GET' : method} ${path.replace(':id', 'nonsense')}?limit=nonsense`,
            headers: ['Content-Type: application/json', ...headers],
            body: '{"title":',
          }),
        ),
      )
    }

    const expectRefusal = async (headers: string[], code: string, detail: string) => {
      const all = await answers(...headers)
      // A route that is meant to be open stands in `publicRoutes`.
      const open = guarded
        .filter((_, i) => all[i]!.status !== 401)
        .map(({ method, path }) => `${method} ${path}`)
      expect(open).toEqual([])
      for (const answer of all) expectError(answer, 401, code, detail)
    }

    const claimsOf = (user: User) =>
      JSON.parse(Buffer.from(user.token.split('.')[1]!, 'base64url').toString())

    const signed = (claims: object, { alg = 'HS256', secret = secretKey } = {}) =>
      new SignJWT({ ...claims }).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret))

    test('that is not on the list of public ones is guarded, and the list is complete', () => {
      const all = allRoutes().map(({ method, path }) => `${method} ${path}`)

      expect(publicRoutes.filter(route => !all.includes(route))).toEqual([])
      expect(guarded.length).toBeGreaterThan(10)
      expect(new Set(all).size).toBe(all.length)
    })

    test('stands under /api/v1 and under /api alike', () => {
      const under = (prefix: string) =>
        allRoutes()
          .filter(
            ({ path }) =>
              path.startsWith(`${prefix}/`) && (prefix !== '/api' || !path.startsWith('/api/v1/')),
          )
          .map(({ method, path }) => `${method} ${path.slice(prefix.length)}`)
          .sort()

      expect(under('/api')).toEqual(under('/api/v1'))
    })

    test('declares every error that it answers', async () => {
      const json = 'Content-Type: application/json'
      // What the calls that ask for the password take, all together.
      const wrongPassword = {
        ...{ email: 'ada@example.com', password: 'wrong password', current_password: 'wrong password' },
        ...{ new_password: 'correct horse battery', name: 'script', scopes: ['tasks:read'] },
      }
      const requests = (token: string, apiToken: string) => {
        const signedIn = `Authorization: Bearer ${token}`
        const byScript = `Authorization: Bearer ${apiToken}`
        return [
          { headers: [] },
          { headers: [byScript] },
          { headers: ['Authorization: Bearer nonsense'] },
          { headers: [signedIn], query: '?limit=nonsense&%ff=1' },
          { headers: [signedIn, 'If-Match: nonsense', 'If-None-Match: nonsense'] },
          { headers: [signedIn, json], body: '{"title":' },
          { headers: [signedIn, json], body: '{}' },
          { headers: [signedIn, json], body: JSON.stringify(wrongPassword) },
          { headers: [signedIn, json], body: ' '.repeat(2 ** 21) },
          { headers: [signedIn, 'Content-Type: text/plain'], body: 'title' },
          { headers: [signedIn] },
        ]
      }
      const { paths } = (await send(api.url, { line: 'GET /openapi.json', headers: [] })).body
      const undeclared = new Set<string>()
      for (const { method, path } of allRoutes().filter(({ path }) => path.startsWith('/api/v1/'))) {
        const declared = paths[path.replace(':id', '{id}')][method.toLowerCase()].responses
        const ada = await api.user()
        const script = await makeApiToken(api, ada, ['account:read'])
        // A stream that begins has no end.
        const fallback = path.endsWith('/events') ? '?since=nonsense' : ''
        for (const { query = fallback, ...request } of requests(ada.token, script.token)) {
          const line = `${method} ${path.replace(':id', 'nonsense')}${query}`
          const { status, body } = await send(api.url, { line, ...request })
          if (status < 400) continue
          const code: ErrorCode = body.code
          // Several texts may have one code.
          const texts = [new AppError(code).message, body.detail]
          if (!texts.some(text => declared[status]?.description?.includes(text)))
            undeclared.add(
              `${method} ${path} answers ${status} ${code} and does not declare it: ${cure(status, code)}`,
            )
        }
      }
      expect([...undeclared]).toEqual([])
    }, 30_000)

    test('says "Not authenticated" without a bearer token', async () => {
      const ada = await api.user()
      for (const headers of [
        [],
        ['Authorization: '],
        ['Authorization: Bearer'],
        ['Authorization: Bearer  '],
        ['Authorization: Basic Og=='],
        [`Authorization: ${ada.token}`],
        [`Authorization: Token ${ada.token}`],
        [`Cookie: access_token=${ada.token}`],
        [`X-Authorization: Bearer ${ada.token}`],
      ]) {
        await expectRefusal(headers, 'not_authenticated', 'Not authenticated')
      }
    })

    test('takes a bearer token after any number of spaces', async () => {
      const { token } = await api.user()
      const headers = [`Authorization: bearer   ${token}`]
      expect((await send(api.url, { line: 'GET /api/v1/users/me', headers })).status).toBe(200)
    })

    test('refuses a forged token', async () => {
      const ada = await api.user()
      const bob = await api.user()
      const claims = claimsOf(ada)
      const { exp: _, ...withoutExp } = claims
      const { sub: __, ...withoutSub } = claims
      const { sid: ___, ...withoutSid } = claims
      const now = Math.floor(Date.now() / 1000)
      const [head, body, signature] = ada.token.split('.') as [string, string, string]
      const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
      const unknown = Bun.randomUUIDv7()
      const forged = {
        'alg none': new UnsecuredJWT({ ...claims }).encode(),
        'alg NONE with a signature': `${encode({ alg: 'NONE' })}.${body}.${signature}`,
        'no alg': `${encode({ typ: 'JWT' })}.${body}.${signature}`,
        'alg of another family': `${encode({ alg: 'RS256' })}.${body}.${signature}`,
        HS384: await signed(claims, { alg: 'HS384' }),
        HS512: await signed(claims, { alg: 'HS512' }),
        'another secret': await signed(claims, { secret: 'another-secret-another-secret-another-01' }),
        'an empty secret': await signed(claims, { secret: ' ' }),
        expired: await signed({ ...claims, exp: now - 1 }),
        'expires this second': await signed({ ...claims, exp: now }),
        'not yet': await signed({ ...claims, nbf: now + 1000 }),
        'no exp': await signed(withoutExp),
        'exp no number': await signed({ ...claims, exp: String(claims.exp) }),
        'no sub': await signed(withoutSub),
        'no sid': await signed(withoutSid),
        'an unknown sub': await signed({ ...claims, sub: unknown }),
        'sub no uuid': await signed({ ...claims, sub: "' or 1=1 --" }),
        'sub no text': await signed({ ...claims, sub: 5 }),
        'sub a list': await signed({ ...claims, sub: [claims.sub] }),
        'sid no uuid': await signed({ ...claims, sid: 'nonsense' }),
        'sid no text': await signed({ ...claims, sid: { $ne: null } }),
        'an unknown sid': await signed({ ...claims, sid: unknown }),
        'sid of another user': await signed({ ...claims, sid: claimsOf(bob).sid }),
        'sub of another user': await signed({ ...claims, sub: bob.id }),
        'changed body': `${head}.${encode({ ...claims, sub: bob.id })}.${signature}`,
        'no signature': `${head}.${body}.`,
        'two parts': `${head}.${body}`,
        'four parts': `${ada.token}.x`,
        'a refresh token': ada.refreshToken,
        garbage: 'garbage',
        'not even text': '\xff\xfe',
        'very long': 'x'.repeat(10_000),
        'a letter too many': `${ada.token}x`,
        'its own token twice': `${ada.token}, Bearer ${ada.token}`,
      }
      for (const token of Object.values(forged)) {
        await expectRefusal(
          [`Authorization: Bearer ${token}`],
          'invalid_token',
          'Could not validate credentials',
        )
      }
      await expectRefusal(
        [`Authorization: Bearer ${ada.token}`, `Authorization: Bearer ${bob.token}`],
        'invalid_token',
        'Could not validate credentials',
      )
      // The same means make a token that is taken: the refusals above have the reasons that they name.
      const genuine = await signed({ ...claims, exp: now + 60 })
      expect((await api.get('/users/me', { token: genuine })).body.id).toBe(ada.id)
    }, 30_000)

    test.each([...tokenScopes.map(scope => [[scope]]), [[...tokenScopes]]] as [TokenScope[]][])(
      'takes an API token with %j only if it requires such a scope, and says which it requires',
      async scopes => {
        const { token } = await makeApiToken(api, await api.user(), scopes)
        const granted: Scope[] = scopes.includes('tasks:write') ? ['tasks:read', ...scopes] : scopes

        const all = await answers(`Authorization: Bearer ${token}`)

        for (const [i, answer] of all.entries()) {
          const { method, path } = guarded[i]!
          const required = requiredScope(method, path)
          const isAllowed = granted.includes(required)
          expect([method, path, answer.body.code === 'insufficient_scope']).toEqual([
            method,
            path,
            !isAllowed,
          ])
          if (isAllowed) continue
          expectError(answer, 403, 'insufficient_scope', 'The token lacks the scope for this')
          expect(answer.headers.get('www-authenticate')).toBe(
            `Bearer error="insufficient_scope", scope="${required}"`,
          )
        }
      },
    )

    test('takes the word Bearer in any case', async () => {
      const ada = await api.user()

      const answer = await api.get('/users/me', { headers: { authorization: `bEARER ${ada.token}` } })

      expect(answer.status).toBe(200)
    })

    test.each([
      ['task', '/tasks', { title: 'hers' }, 8],
      ['list', '/lists', { name: 'hers' }, 6],
    ])('with a %s’s id says 403 to every user but its owner', async (_, collection, json, count) => {
      const ada = await api.user()
      const bob = await api.user()
      const { body: hers } = await api.post(collection, { token: ada.token, json })
      const routes = guarded.filter(({ path }) => path.includes(`${collection}/:id`))

      for (const { method, path } of routes) {
        const answer = await api.request(method, api.url + path.replace(':id', hers.id), {
          token: bob.token,
          ...(method !== 'GET' && method !== 'DELETE' && { json: {} }),
        })
        expectError(answer, 403, 'not_authorized', 'Not authorized')
      }
      expect(routes.length).toBeGreaterThanOrEqual(count)
      expect((await api.get(`${collection}/${hers.id}`, { token: ada.token })).body).toEqual(hers)
    })

    test('lets a listed origin call with credentials, and no other', async () => {
      const paths = ['/health', '/nope', '/api/v1/tasks', '/api/auth/login']
      for (const path of paths) {
        const from = async (origin: string) =>
          (await api.get(api.url + path, { headers: { origin } })).headers
        for (const origin of ['https://app.example.com', 'http://localhost:5173']) {
          const headers = await from(origin)
          expect(headers.get('access-control-allow-origin')).toBe(origin)
          expect(headers.get('access-control-allow-credentials')).toBe('true')
          expect(headers.get('vary')?.toLowerCase()).toContain('origin')
        }
        for (const origin of [
          'null',
          '*',
          'http://app.example.com',
          'https://app.example.com:8443',
          'https://app.example.com.evil.example',
          'https://evil-app.example.com',
          'https://app_example.com',
          'https://appXexample.com',
          'https://APP.example.com/',
          'file://',
        ]) {
          expect([origin, (await from(origin)).get('access-control-allow-origin')]).toEqual([origin, null])
        }
        expect((await api.get(api.url + path)).headers.get('access-control-allow-origin')).toBeNull()
      }
    })

    test('answers a preflight, for listed origins with what they may do', async () => {
      const preflight = (origin: string, path: string) =>
        api.request('OPTIONS', api.url + path, {
          headers: {
            origin,
            'access-control-request-method': 'PATCH',
            'access-control-request-headers': 'authorization,content-type,if-match',
          },
        })

      const ours = await preflight('https://app.example.com', '/api/v1/tasks/x')
      const other = await preflight('https://evil.example', '/api/v1/tasks/x')

      expect(ours.status).toBeLessThan(300)
      expect(ours.headers.get('access-control-allow-origin')).toBe('https://app.example.com')
      expect(ours.headers.get('access-control-allow-methods')).toContain('PATCH')
      expect(ours.headers.get('access-control-allow-headers')).toContain('authorization')
      expect(ours.headers.get('access-control-allow-headers')).toContain('if-match')
      expect(other.headers.get('access-control-allow-origin')).toBeNull()
    })
  },
  { FRONTEND_URL: 'https://app.example.com, http://localhost:5173/' },
)
