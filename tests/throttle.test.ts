import { describe, expect, test } from 'bun:test'
import { type Answer, type DatabaseKind, type Service, startService } from './support/harness.ts'

const trusted = { TRUSTED_PROXIES: '127.0.0.1/32' }

/** A sign-in that seems to come from `ip`, through a proxy that is trusted. */
const signIn = (api: Service, username: string, password: string, ip: string): Promise<Answer> =>
  api.post('/auth/login', { form: { username, password }, headers: { 'x-forwarded-for': ip } })

for (const kind of ['postgres', 'embedded'] as DatabaseKind[]) {
  describe(`throttles (${kind})`, () => {
    async function withService(settings: Record<string, string>, work: (api: Service) => Promise<void>) {
      const api = await startService(kind, settings)
      try {
        await work(api)
      } finally {
        await api.stop()
      }
    }

    test('an address that signs in too often is told when to come back', () =>
      withService({ ...trusted, LOGIN_LIMIT: '3' }, async api => {
        const answers = []
        for (let i = 0; i < 4; i++)
          answers.push(await signIn(api, 'nobody@example.com', 'wrong', '203.0.113.1'))

        expect(answers.map(answer => answer.status)).toEqual([401, 401, 401, 429])
        expect(answers[0]!.headers.get('ratelimit-policy')).toBe('"login";q=3;w=60')
        expect(answers[0]!.headers.get('ratelimit')).toMatch(/^"login";r=2;t=\d+$/)
        expect(Number(answers[3]!.headers.get('retry-after'))).toBeWithin(1, 61)
        expect(answers[3]!.body).toMatchObject({ detail: 'Too many requests', code: 'too_many_requests' })
        expect((await signIn(api, 'nobody@example.com', 'wrong', '203.0.113.2')).status).toBe(401)
      }))

    test('the whole /64 of an IPv6 address is one address', () =>
      withService({ ...trusted, LOGIN_LIMIT: '1' }, async api => {
        expect((await signIn(api, 'nobody@example.com', 'wrong', '2001:db8:1:2::1')).status).toBe(401)
        expect((await signIn(api, 'nobody@example.com', 'wrong', '2001:db8:1:2:ffff::9')).status).toBe(429)
        expect((await signIn(api, 'nobody@example.com', 'wrong', '2001:db8:1:3::1')).status).toBe(401)
      }))

    test('a forged X-Forwarded-For from elsewhere does not count', () =>
      withService({ TRUSTED_PROXIES: '10.0.0.0/8', LOGIN_LIMIT: '1' }, async api => {
        expect((await signIn(api, 'nobody@example.com', 'wrong', '203.0.113.1')).status).toBe(401)
        expect((await signIn(api, 'nobody@example.com', 'wrong', '203.0.113.2')).status).toBe(429)
      }))

    test('of several hops only those that trusted proxies wrote count', () =>
      withService({ ...trusted, LOGIN_LIMIT: '1' }, async api => {
        expect((await signIn(api, 'nobody@example.com', 'wrong', '198.51.100.1, 203.0.113.1')).status).toBe(
          401,
        )
        expect((await signIn(api, 'nobody@example.com', 'wrong', '198.51.100.2, 203.0.113.1')).status).toBe(
          429,
        )
      }))

    test('registrations are counted by address', () =>
      withService({ ...trusted, REGISTER_LIMIT: '1' }, async api => {
        await api.user()
        const second = await api.post('/auth/register', {
          json: { email: 'b@example.com', password: 'correct horse' },
        })
        expect(second.status).toBe(429)
      }))

    test('guesses from everywhere together are few, and the owner still gets in at the first try', () =>
      withService({ ...trusted, LOGIN_FAILURE_LIMIT: '5' }, async api => {
        const ada = await api.user()

        const guesses = await Promise.all(
          Array.from({ length: 20 }, () => signIn(api, ada.email, 'a guess', '203.0.113.66')),
        )

        const statuses = guesses.map(guess => guess.status).sort()
        // Five for the account and, when those are used up, one more for the address.
        expect(statuses).toEqual([...Array(6).fill(401), ...Array(14).fill(429)])
        expect(Number(guesses.find(guess => guess.status === 429)!.headers.get('retry-after'))).toBeWithin(
          1,
          61,
        )
        expect((await signIn(api, ada.email.toUpperCase(), ada.password, '198.51.100.7')).status).toBe(200)
      }))

    test('right passwords use nothing up', () =>
      withService({ ...trusted, LOGIN_FAILURE_LIMIT: '2' }, async api => {
        const ada = await api.user()
        for (let i = 0; i < 6; i++) {
          expect((await signIn(api, ada.email, ada.password, '203.0.113.1')).status).toBe(200)
        }
      }))
  })
}
