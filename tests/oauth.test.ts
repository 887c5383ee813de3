import { expect, test } from 'bun:test'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { ResourceOwnerPassword } from 'simple-oauth2'
import { onBothDatabases } from './support/harness.ts'

/** Clients that others wrote: what they take for OAuth 2 and JWT is what we have to give. */
onBothDatabases('OAuth 2', api => {
  const oauth = () =>
    new ResourceOwnerPassword({
      client: { id: 'any', secret: 'thing' },
      auth: { tokenHost: api.url, tokenPath: '/api/v1/auth/login', refreshPath: '/api/v1/auth/refresh' },
    })

  test('simple-oauth2 signs in by password, and again by refresh token', async () => {
    const ada = await api.user()

    const token = await oauth().getToken({ username: ada.email, password: ada.password })
    expect(token.expired()).toBe(false)
    const next = await token.refresh()

    for (const { access_token } of [token.token, next.token]) {
      const me = await api.get('/users/me', { token: access_token as string })
      expect(me).toMatchObject({ status: 200, body: { id: ada.id } })
    }
    expect(next.token.refresh_token).not.toBe(token.token.refresh_token)
  })

  test('simple-oauth2 reports that a password is wrong', async () => {
    const ada = await api.user()
    const attempt = oauth().getToken({ username: ada.email, password: 'wrong' })
    expect(attempt).rejects.toMatchObject({ data: { payload: { detail: 'Incorrect email or password' } } })
  })

  test('jose verifies the access token and finds the claims of the contract', async () => {
    const ada = await api.user()
    const secret = new TextEncoder().encode('test-secret-test-secret-test-secret-0123')

    const { payload } = await jwtVerify(ada.token, secret, { algorithms: ['HS256'] })

    expect(decodeProtectedHeader(ada.token)).toEqual({ alg: 'HS256', typ: 'JWT' })
    expect(Object.keys(payload).sort()).toEqual(['exp', 'iat', 'sid', 'sub'])
    expect(payload.sub).toBe(ada.id)
    expect(payload.exp! - payload.iat!).toBe(1440 * 60)
  })
})
