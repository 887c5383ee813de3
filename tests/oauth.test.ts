import { expect, test } from 'bun:test'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import * as oauth4webapi from 'oauth4webapi'
import * as openidClient from 'openid-client'
import { ResourceOwnerPassword } from 'simple-oauth2'
import { newApiToken } from '../src/lib/api-token.ts'
import { makeApiToken } from './support/api-token.ts'
import { onBothDatabases, testSettings } from './support/harness.ts'

interface Tokens {
  access_token: string
  refresh_token: string
}

/** An OAuth 2 client that knows one address for both grants. */
interface Grants {
  signIn(username: string, password: string): Promise<Tokens>
  refresh(refreshToken: string): Promise<Tokens>
  revoke(token: string): Promise<unknown>
}

/** Clients that others wrote: their reading of OAuth 2 and JWT is the one to satisfy. */
const clients: Record<string, (endpoint: string) => Grants> = {
  'simple-oauth2'(endpoint) {
    const { origin, pathname } = new URL(endpoint)
    const client = new ResourceOwnerPassword({
      client: { id: 'any', secret: 'thing' },
      auth: { tokenHost: origin, tokenPath: pathname, revokePath: revocationOf(pathname) },
    })
    return {
      signIn: async (username, password) =>
        (await client.getToken({ username, password })).token as unknown as Tokens,
      refresh: async refresh_token =>
        (await client.createToken({ refresh_token }).refresh()).token as unknown as Tokens,
      revoke: access_token => client.createToken({ access_token }).revoke('access_token'),
    }
  },
  oauth4webapi(endpoint) {
    const server = {
      issuer: new URL(endpoint).origin,
      token_endpoint: endpoint,
      revocation_endpoint: revocationOf(endpoint),
    }
    const client = { client_id: 'any' }
    const options = { [oauth4webapi.allowInsecureRequests]: true }
    const read = async (response: Response) =>
      (await oauth4webapi.processGenericTokenEndpointResponse(server, client, response)) as unknown as Tokens
    return {
      async signIn(username, password) {
        const fields = { username, password }
        return read(
          await oauth4webapi.genericTokenEndpointRequest(
            server,
            client,
            oauth4webapi.None(),
            'password',
            fields,
            options,
          ),
        )
      },
      refresh: async refreshToken =>
        read(
          await oauth4webapi.refreshTokenGrantRequest(
            server,
            client,
            oauth4webapi.None(),
            refreshToken,
            options,
          ),
        ),
      async revoke(token) {
        const none = oauth4webapi.None()
        const answer = await oauth4webapi.revocationRequest(server, client, none, token, options)
        return oauth4webapi.processRevocationResponse(answer)
      },
    }
  },
  'openid-client'(endpoint) {
    const server = {
      issuer: new URL(endpoint).origin,
      token_endpoint: endpoint,
      revocation_endpoint: revocationOf(endpoint),
    }
    const config = new openidClient.Configuration(server, 'any', 'thing')
    openidClient.allowInsecureRequests(config)
    return {
      signIn: async (username, password) =>
        (await openidClient.genericGrantRequest(config, 'password', {
          username,
          password,
        })) as unknown as Tokens,
      refresh: async refreshToken =>
        (await openidClient.refreshTokenGrant(config, refreshToken)) as unknown as Tokens,
      revoke: token => openidClient.tokenRevocation(config, token),
    }
  },
}

/** The address of the revocation beside that of the token endpoint. */
const revocationOf = (endpoint: string) => endpoint.replace(/login$/, 'revoke')

onBothDatabases('OAuth 2', api => {
  const endpoint = () => `${api.url}/api/v1/auth/login`

  test.each(Object.keys(clients))('%s signs in and refreshes at one endpoint', async name => {
    const ada = await api.user()
    const client = clients[name]!(endpoint())

    const tokens = await client.signIn(ada.email, ada.password)
    const next = await client.refresh(tokens.refresh_token)

    for (const { access_token } of [tokens, next]) {
      const me = await api.get('/users/me', { token: access_token })
      expect(me).toMatchObject({ status: 200, body: { id: ada.id } })
    }
    expect(next.refresh_token).not.toBe(tokens.refresh_token)
  })

  test.each(Object.keys(clients))('%s revokes an access, a refresh and an API token', async name => {
    const client = clients[name]!(endpoint())
    const isSignedIn = async (token: string) => (await api.get('/users/me', { token })).status === 200
    const byAccessToken = await api.user()
    const byRefreshToken = await api.user()
    const ada = await api.user()
    const apiToken = await makeApiToken(api, ada, ['account:read'])
    const tokens = [byAccessToken.token, byRefreshToken.token, apiToken.token]
    expect(await Promise.all(tokens.map(isSignedIn))).toEqual([true, true, true])

    for (const token of [byAccessToken.token, byRefreshToken.refreshToken, apiToken.token, 'nonsense'])
      await client.revoke(token)

    expect(await Promise.all(tokens.map(isSignedIn))).toEqual([false, false, false])
    for (const { refreshToken } of [byAccessToken, byRefreshToken])
      expect((await api.post('/auth/refresh', { json: { refresh_token: refreshToken } })).status).toBe(401)
    expect(await isSignedIn(ada.token)).toBe(true)
  })

  test('a revocation is answered alike whatever the token was, and ends only what it names', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const next = await api.post('/auth/refresh', { json: { refresh_token: ada.refreshToken } })
    const [second, third] = await Promise.all(
      [1, 2].map(() => api.post('/auth/login', { form: { username: ada.email, password: ada.password } })),
    )
    const { token } = await makeApiToken(api, bob)
    const forged = `${bob.token.slice(0, -2)}xx`
    const revoke = (token: string, more = {}) => api.post('/auth/revoke', { form: { token, ...more } })

    for (const text of ['', 'nonsense', forged, newApiToken(), `${token}x`, 'x'.repeat(20_000), 'é€😀'])
      expect([text, await revoke(text)]).toEqual([text, expect.objectContaining({ status: 200, body: {} })])
    expect((await api.get('/users/me', { token: bob.token })).status).toBe(200)
    expect((await api.get('/tasks', { token })).status).toBe(200)

    // An older refresh token names the session as well, and a wrong hint changes nothing.
    expect(await revoke(ada.refreshToken, { token_type_hint: 'access_token' })).toMatchObject({ status: 200 })
    expect((await api.get('/users/me', { token: next.body.access_token })).status).toBe(401)
    expect(await revoke(second!.body.access_token)).toMatchObject({ status: 200 })
    expect((await api.get('/users/me', { token: second!.body.access_token })).status).toBe(401)
    expect((await api.get('/users/me', { token: third!.body.access_token })).status).toBe(200)
    for (const sent of [{ form: {} }, { form: { token: 'a\0b' } }, { json: { token: 5 } }, {}])
      expect((await api.post('/auth/revoke', sent)).body).toMatchObject({
        code: 'validation_failed',
        error: 'invalid_request',
      })
  })

  test('simple-oauth2 receives the reason of a refusal', async () => {
    const ada = await api.user()
    const client = clients['simple-oauth2']!(endpoint())

    for (const [attempt, description] of [
      [() => client.signIn(ada.email, 'wrong'), 'Incorrect email or password'],
      [() => client.refresh('wrong'), 'Could not validate credentials'],
    ] as const) {
      const payload = { error: 'invalid_grant', error_description: description, detail: description }
      await expect(attempt()).rejects.toMatchObject({ data: { payload } })
    }
  })

  test.each(['oauth4webapi', 'openid-client'])('%s receives the reason of a refusal', async name => {
    const client = clients[name]!(endpoint())
    // A 401 has a challenge, and both report that rather than the body; the body is still there to read.
    const error = await client.refresh('wrong').catch(error => error)
    const response: Response = error.response ?? error.cause.response

    expect(error.code).toBe('OAUTH_WWW_AUTHENTICATE_CHALLENGE')
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({
      error: 'invalid_grant',
      error_description: 'Could not validate credentials',
    })
  })

  test('oauth4webapi receives the code of a grant that does not exist', async () => {
    const server = { issuer: api.url, token_endpoint: endpoint() }
    const client = { client_id: 'any' }
    const options = { [oauth4webapi.allowInsecureRequests]: true }
    const response = await oauth4webapi.genericTokenEndpointRequest(
      server,
      client,
      oauth4webapi.None(),
      'client_credentials',
      {},
      options,
    )

    await expect(
      oauth4webapi.processGenericTokenEndpointResponse(server, client, response),
    ).rejects.toMatchObject({
      error: 'unsupported_grant_type',
      error_description: "grant_type: Input should be one of 'password', 'refresh_token'",
      status: 422,
    })
  })

  test('every failure of the two calls has the OAuth 2 fields beside the common ones', async () => {
    const ada = await api.user()
    const { email: username, password } = ada
    const token = 'secret-refresh-token'
    const urlencoded = 'application/x-www-form-urlencoded'
    const failures = [
      [{ form: { username, password: 'wrong' } }, 401, 'invalid_grant'],
      [{ form: { username, password, grant_type: 'refresh_token' } }, 422, 'invalid_request'],
      [{ form: { grant_type: 'refresh_token', refresh_token: token } }, 401, 'invalid_grant'],
      [{ json: { grant_type: 'refresh_token', refresh_token: 5 } }, 422, 'invalid_request'],
      [{ json: { grant_type: 5, username, password } }, 422, 'unsupported_grant_type'],
      [{ json: [] }, 422, 'invalid_request'],
      [{ raw: '{"username":' }, 422, 'invalid_request'],
      [{ raw: 'grant_type=%ff', headers: { 'content-type': urlencoded } }, 422, 'invalid_request'],
      [
        {
          raw: `${new URLSearchParams({ username, password })}&username=${username}`,
          headers: { 'content-type': urlencoded },
        },
        422,
        'invalid_request',
      ],
      [{ raw: 'x', headers: { 'content-type': 'text/plain' } }, 415, 'invalid_request'],
      [{ raw: 'x'.repeat(40_000), headers: { 'content-type': 'application/json' } }, 413, 'invalid_request'],
      [{}, 422, 'invalid_request'],
      [
        { json: { username, password, 'a "\\ü': 1 }, headers: { prefer: 'handling=strict' } },
        422,
        'invalid_request',
      ],
    ] as const
    for (const [sent, status, error] of failures) {
      const answer = await api.post('/auth/login', sent)
      expect([sent, answer.status, answer.body.error]).toEqual([sent, status, error])
      expect(answer.body.detail).toBeDefined()
      expect(answer.body.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/)
      expect(JSON.stringify(answer.body)).not.toContain(token)
    }
    const refused = await api.post('/auth/refresh', { json: { refresh_token: 'wrong' } })
    expect(refused.body).toMatchObject({ code: 'invalid_token', error: 'invalid_grant' })
    const json = { token: ada.refreshToken, client_secret: 5 }
    expect((await api.post('/auth/revoke', { json })).body.body).toEqual({
      token: '********',
      client_secret: '********',
    })
    const other = await api.post('/auth/refresh', {
      form: { grant_type: 'password', refresh_token: ada.refreshToken },
    })
    expect([other.status, other.body.error]).toEqual([422, 'unsupported_grant_type'])
    // The fields belong to the OAuth 2 calls alone.
    expect((await api.post('/auth/register', { json: {} })).body).not.toHaveProperty('error')
  })

  test('a body names the fields that its grant misses', async () => {
    const missing = async (form: Record<string, string>) =>
      (await api.post('/auth/login', { form })).body.detail.map(({ loc }: { loc: string[] }) => loc.join('.'))

    expect(await missing({ scope: '' })).toEqual(['body.username', 'body.password'])
    expect(await missing({ grant_type: 'password' })).toEqual(['body.username', 'body.password'])
    expect(await missing({ grant_type: 'refresh_token' })).toEqual(['body.refresh_token'])
    expect(await missing({ grant_type: 'implicit' })).toEqual(['body.grant_type'])
    expect(await missing({ email: 'ada@example.com' })).toEqual(['body.password'])
    expect(
      (await api.post('/auth/login', { json: { email: 'ada@example.com', password: 5 } })).body,
    ).toMatchObject({
      detail: [{ loc: ['body', 'password'] }],
      body: { email: 'ada@example.com', password: '********' },
    })
    expect((await api.post('/auth/login', { form: { scope: '' } })).body.error_description).toBe(
      'username: Field required; password: Field required',
    )
  })

  test('of a form, a field without a value counts as omitted; an empty name or password is a wrong one', async () => {
    const { email, password } = await api.user()
    const post = (address: string, form: Record<string, string>) => api.post(`/auth/${address}`, { form })
    // As the Swagger page of the FastAPI service sent it.
    const grant = { grant_type: '', username: email, password, scope: '', client_id: '', client_secret: '' }
    const pair = await post('login', grant)
    expect(pair).toMatchObject({ status: 200, body: { token_type: 'bearer' } })
    const { refresh_token } = pair.body
    expect((await post('refresh', { grant_type: '', refresh_token })).status).toBe(200)
    expect((await post('login', { username: email, password: '' })).body.error).toBe('invalid_grant')
    expect((await post('login', { username: '', password })).body.error).toBe('invalid_grant')
    for (const address of ['login', 'refresh'])
      expect(await post(address, { grant_type: 'refresh_token', refresh_token: '' })).toMatchObject({
        status: 422,
        body: { detail: [{ loc: ['body', 'refresh_token'], type: 'missing' }], error: 'invalid_request' },
      })
    const json = { grant_type: '', username: email, password }
    expect((await api.post('/auth/login', { json })).status).toBe(422)
  })

  test('what OAuth 2 clients add is known at each address, also where unknown fields are refused', async () => {
    const { email, password, refreshToken } = await api.user()
    const other = await api.user()
    const added = { client_id: 'b', client_secret: 'c' }
    const headers = { prefer: 'handling=strict' }
    const statuses = []
    for (const [address, form] of [
      ['login', { grant_type: 'password', username: email, password, scope: 'a' }],
      ['login', { grant_type: 'refresh_token', refresh_token: other.refreshToken, scope: 'a' }],
      ['refresh', { grant_type: 'refresh_token', refresh_token: refreshToken, scope: 'a' }],
      ['revoke', { token: refreshToken, token_type_hint: 'refresh_token' }],
    ] as const) {
      const { status } = await api.post(`/auth/${address}`, { form: { ...form, ...added }, headers })
      statuses.push(status)
    }

    expect(statuses).toEqual([200, 200, 200, 200])
  })

  test('a failure of the service has a code of OAuth 2, too', async () => {
    const { email, password, refreshToken } = await api.user()
    await api.sql('alter table sessions rename to sessions_away', [])
    const login = await api.post('/auth/login', { form: { username: email, password } })
    const refresh = await api.post('/auth/refresh', { form: { refresh_token: refreshToken } })
    await api.sql('alter table sessions_away rename to sessions', [])

    for (const { status, body } of [login, refresh]) {
      expect(status).toBe(503)
      expect(body).toMatchObject({
        code: 'unavailable',
        error: 'temporarily_unavailable',
        error_description: 'Service temporarily unavailable',
      })
    }
  })

  test('so has a fault of the service', async () => {
    const { email, password } = await api.user()
    await api.sql(`create function fail() returns trigger language plpgsql as 'begin raise ''x''; end'`, [])
    await api.sql('create trigger fail before insert on sessions for each row execute function fail()', [])
    const { status, body } = await api.post('/auth/login', { form: { username: email, password } })
    await api.sql('drop function fail cascade', [])

    expect([status, body.code, body.error]).toEqual([500, 'internal', 'server_error'])
  })

  test('jose verifies the access token and finds the documented claims', async () => {
    const ada = await api.user()
    const secret = new TextEncoder().encode(testSettings.SECRET_KEY)

    const { payload } = await jwtVerify(ada.token, secret, { algorithms: ['HS256'] })

    expect(decodeProtectedHeader(ada.token)).toEqual({ alg: 'HS256', typ: 'JWT' })
    expect(Object.keys(payload).sort()).toEqual(['exp', 'iat', 'sid', 'sub'])
    expect(payload.sub).toBe(ada.id)
    expect(payload.exp! - payload.iat!).toBe(1440 * 60)
  })
})

onBothDatabases(
  'OAuth 2 with a limit of logins',
  api => {
    test('a refresh at the token endpoint does not count as a login', async () => {
      const ada = await api.user()
      let token = ada.refreshToken
      for (let i = 0; i < 4; i++) {
        const form = { grant_type: 'refresh_token', refresh_token: token }
        const { status, body } = await api.post('/auth/login', { form })
        expect(status).toBe(200)
        token = body.refresh_token
      }
      const form = { username: ada.email, password: ada.password }
      expect((await api.post('/auth/login', { form })).status).toBe(200)
      expect((await api.post('/auth/login', { form })).body).toMatchObject({
        code: 'too_many_requests',
        error: 'temporarily_unavailable',
      })
    })
  },
  { LOGIN_LIMIT: '2' },
)
