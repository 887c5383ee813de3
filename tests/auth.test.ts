import { describe, expect, test } from 'bun:test'
import { createHmac } from 'node:crypto'
import {
  decodeJwt,
  decodeProtectedHeader,
  EncryptJWT,
  exportJWK,
  generateKeyPair,
  jwtVerify,
  SignJWT,
} from 'jose'
import { leastCpuMs, unlike } from './support/cpu.ts'
import { onBothDatabases, testSettings, type User } from './support/harness.ts'
import { expectError } from './support/wire.ts'

const password = 'correct horse battery'
const newAddress = () => `${crypto.randomUUID()}@example.com`
const secretKey = new TextEncoder().encode(testSettings.SECRET_KEY)

onBothDatabases(
  'accounts',
  api => {
    const register = (json: object) => api.post('/auth/register', { json })
    const login = (form: Record<string, string>) => api.post('/auth/login', { form })

    describe('registering', () => {
      test('answers the account and nothing more', async () => {
        const email = newAddress()

        const made = await register({
          email,
          password,
          id: crypto.randomUUID(),
          is_admin: true,
          created_at: '2000-01-01T00:00:00Z',
        })

        expect(made.status).toBe(201)
        expect(made.body).toEqual({ id: expect.any(String), email, created_at: expect.any(String) })
        expect(Math.abs(Date.parse(made.body.created_at) - Date.now())).toBeLessThan(60_000)
        const { access_token: token } = (await login({ username: email, password })).body
        const { updated_at, ...profile } = (await api.get('/users/me', { token })).body
        expect([profile, updated_at]).toEqual([made.body, made.body.created_at])
      })

      test('takes a form, too', async () => {
        const { status } = await api.post('/auth/register', { form: { email: newAddress(), password } })
        expect(status).toBe(201)
      })

      test('trims the address, keeps its letters, and takes it once whatever their case', async () => {
        const email = `Ada.${crypto.randomUUID()}@Example.COM`

        const made = await register({ email: ` \t${email}\n`, password })

        expect([made.status, made.body.email]).toEqual([201, email])
        for (const again of [email, email.toLowerCase(), email.toUpperCase(), ` ${email} `]) {
          expectError(
            await register({ email: again, password }),
            400,
            'email_taken',
            'Email already registered',
          )
        }
        expect((await login({ username: email.toUpperCase(), password })).status).toBe(200)
        expect((await login({ username: ` ${email.toLowerCase()} `, password })).status).toBe(200)
      })

      test.each([
        'plain',
        '@example.com',
        'a@',
        'a@b',
        'a b@example.com',
        'a@exa mple.com',
        'a@@example.com',
        'a@example..com',
        'a@.example.com',
        'a@example.com.',
        '',
        ' ',
        'a@example.com, b@example.com',
        'Ada <a@example.com>',
        'a\u0000@example.com',
        'a\u202e@example.com',
        `${'a'.repeat(65)}@example.com`,
        `a@${'b'.repeat(250)}.com`,
      ])('refuses the address %p', async email => {
        const answer = await register({ email, password })

        expectError(answer, 422, 'validation_failed')
        expect(answer.body.detail).toHaveLength(1)
        expect(answer.body.detail[0].loc).toEqual(['body', 'email'])
        expect(answer.body.detail[0].msg).toMatch(/a valid email|NUL/)
        expect(answer.body.detail[0].type).toMatch(/^string_(pattern_mismatch|unicode)$/)
      })

      test('takes unusual addresses, up to 254 characters', async () => {
        const unique = crypto.randomUUID().slice(0, 8)
        const longest = `${unique}${'a'.repeat(56)}@${'b.'.repeat(93)}com`
        expect(longest).toHaveLength(254)
        for (const email of [
          `a+tag.${unique}@sub.example.co.uk`,
          `o'brien-${unique}@example.com`,
          `日本${unique}@例え.jp`,
          `x_${unique}@xn--r8jz45g.jp`,
          longest,
        ]) {
          expect([email, (await register({ email, password })).status]).toEqual([email, 201])
        }
        expect((await register({ email: longest.replace('@', '@c'), password })).status).toBe(422)
      })

      test.each([
        ['', 'string_too_short'],
        ['1234567', 'string_too_short'],
        ['🦆'.repeat(7), 'string_too_short'],
        ['x'.repeat(73), 'string_too_long'],
        ['🦆'.repeat(19), 'string_too_long'],
        ['with\0nul-inside', 'string_unicode'],
        ['lone\ud800surrogate', 'string_unicode'],
      ])('refuses the password %p', async (weak, type) => {
        const answer = await register({ email: newAddress(), password: weak })

        expectError(answer, 422, 'validation_failed', [
          { loc: ['body', 'password'], msg: expect.any(String), type },
        ])
        expect(answer.body.body.password).toBe('********')
      })

      test.each([
        '12345678',
        'x'.repeat(72),
        '🦆'.repeat(8),
        '🦆'.repeat(18),
        '        ',
        ' padded pass ',
        'päßwörter',
        'e\u0301'.repeat(8),
      ])('takes the password %p as it is sent', async secret => {
        const email = newAddress()

        expect((await register({ email, password: secret })).status).toBe(201)
        expect((await login({ username: email, password: secret })).status).toBe(200)
        expect((await login({ username: email, password: `${secret} ` })).status).toBe(401)
        expect((await login({ username: email, password: secret.slice(0, -1) })).status).toBe(401)
      })

      test('needs both fields and tells of both', async () => {
        const answer = await register({})

        expect(answer.body.detail.map((problem: { loc: string[] }) => problem.loc[1])).toEqual([
          'email',
          'password',
        ])
      })

      test('twenty times at once makes one account', async () => {
        const email = newAddress()

        const answers = await Promise.all(
          Array.from({ length: 20 }, (_, i) =>
            register({ email: i % 2 ? email : email.toUpperCase(), password }),
          ),
        )

        expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(19).fill(400)])
        for (const answer of answers.filter(({ status }) => status === 400))
          expectError(answer, 400, 'email_taken')
        const rows = await api.sql('select count(*)::int from users where normalized_email = $1', [email])
        expect(rows).toEqual([[1]])
      })

      test('leaves nothing of the password in the database but a bcrypt hash', async () => {
        const email = newAddress()
        await register({ email, password })

        const [[hash]] = (await api.sql('select password_hash from users where normalized_email = $1', [
          email,
        ])) as [[string]]

        expect(hash).toMatch(/^\$2b\$04\$/)
        expect(await Bun.password.verify(password, hash)).toBe(true)
      })
    })

    describe('signing in', () => {
      test('issues a token of this algorithm with exactly the claims that it should have', async () => {
        const ada = await api.user()
        const { sub, sid, iat, exp, ...others } = decodeJwt(ada.token)

        expect(decodeProtectedHeader(ada.token)).toEqual({ alg: 'HS256', typ: 'JWT' })
        expect(others).toEqual({})
        expect(sub).toBe(ada.id)
        expect(sid).toMatch(/^[0-9a-f-]{36}$/)
        expect(exp! - iat!).toBe(1440 * 60)
        expect(Math.abs(iat! - Date.now() / 1000)).toBeLessThan(30)
        await jwtVerify(ada.token, secretKey, { algorithms: ['HS256'] })
      })

      test('answers with a pair of tokens', async () => {
        const ada = await api.user()

        const { status, body, headers } = await login({ username: ada.email, password: ada.password })

        expect(status).toBe(200)
        expect(body).toEqual({
          access_token: expect.any(String),
          token_type: 'bearer',
          expires_in: 86_400,
          refresh_token: expect.any(String),
        })
        expect(headers.get('set-cookie')).toBeNull()
      })

      test('takes a form, an OAuth 2 form, and JSON with either name', async () => {
        const { email, password } = await api.user()
        const oauth = { grant_type: 'password', scope: 'a b', client_id: 'x', client_secret: 'y' }
        const answers = [
          await login({ username: email, password }),
          await login({ username: email, password, ...oauth }),
          await login({ username: email, password, ...oauth, scope: '', client_id: '', client_secret: '' }),
          await api.post('/auth/login', { json: { email, password } }),
          await api.post('/auth/login', { json: { username: email, password } }),
          await api.post('/auth/login', {
            form: { username: email, password },
            headers: { authorization: 'Basic Og==' },
          }),
        ]

        expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(200))
      })

      test('returns a token that is good with its type in any case', async () => {
        const { email, password } = await api.user()
        const { body } = await login({ username: email, password })
        for (const type of [body.token_type, 'Bearer', 'BEARER ']) {
          const headers = { authorization: `${type} ${body.access_token}` }
          expect(await api.get('/users/me', { headers })).toMatchObject({ status: 200 })
        }
      })

      test('goes by the username when both names are sent', async () => {
        const { email, password } = await api.user()
        const other = newAddress()

        const right = await api.post('/auth/login', { json: { username: email, email: other, password } })
        const wrong = await api.post('/auth/login', { json: { username: other, email, password } })
        expect([right.status, wrong.status]).toEqual([200, 401])
      })

      test('names everything that is missing', async () => {
        const { status, body } = await api.post('/auth/login', { json: {} })
        expect(status).toBe(422)
        expect(body.detail.map(({ loc, type }: { loc: string[]; type: string }) => [type, ...loc])).toEqual([
          ['missing', 'body', 'username'],
          ['missing', 'body', 'password'],
        ])
      })

      test('refuses every reason in the same words', async () => {
        const { email } = await api.user()
        const attempts = [
          { username: email, password: 'wrong horse' },
          { username: email, password: '' },
          { username: email, password: 'x'.repeat(73) },
          { username: email, password: 'x'.repeat(5000) },
          { username: newAddress(), password: 'correct horse' },
          { username: newAddress(), password: '' },
          { username: 'no address at all', password: 'correct horse' },
          { username: `${'x'.repeat(300)}@example.com`, password: 'correct horse' },
          { username: '', password: 'correct horse' },
        ]

        const answers = await Promise.all(attempts.map(login))

        for (const answer of answers)
          expectError(answer, 401, 'incorrect_login', 'Incorrect email or password')
        const seen = answers.map(({ body, headers }) => {
          const { request_id, ...rest } = body
          const named = [...headers].filter(([name]) => !/^(date|x-request-id|ratelimit.*)$/.test(name))
          return JSON.stringify([rest, named.sort()])
        })
        expect(new Set(seen).size).toBe(1)
      })

      test('verifies hashes that passlib wrote', async () => {
        // passlib 1.7.4, CryptContext(schemes=['bcrypt']).hash(…)
        const written = {
          'correct horse battery': '$2b$12$ZHSCYllUHqAqreWiKf1lTehlVpWGm5B18uV8kn8VsDnSfUGWoSauy',
          'пароль-äöü-🦆': '$2b$12$EX5a3Bn9zWDiGeHMOYufleiqJeeJ06Dcp4bd3o9XCPqbGA6WK1zmS',
        }
        for (const [secret, hash] of Object.entries(written)) {
          const { email } = await api.user()
          await api.sql('update users set password_hash = $1 where normalized_email = $2', [hash, email])

          expect((await login({ username: email, password: secret })).status).toBe(200)
          expect((await login({ username: email, password: `${secret}x` })).status).toBe(401)
        }
      }, 30_000)
    })

    describe('a forged token', () => {
      const encode = (value: unknown) => Buffer.from(JSON.stringify(value) ?? '').toString('base64url')
      /** A token with an HMAC, whatever its header says; by default with our own secret. */
      const forge = (
        header: object,
        claims: unknown,
        secret: string | Uint8Array = secretKey,
        hash = 'sha256',
      ) => {
        const signed = `${encode(header)}.${encode(claims)}`
        return `${signed}.${createHmac(hash, secret).update(signed).digest('base64url')}`
      }
      const hs256 = { alg: 'HS256', typ: 'JWT' }
      const expectRefused = async (forged: Record<string, string>) => {
        for (const [kind, token] of Object.entries(forged)) {
          const { status, body } = await api.get('/users/me', { token })
          expect([kind, status, body.code]).toEqual([kind, 401, 'invalid_token'])
        }
      }

      test('with a header that asks for something else is refused, although the signature is right', async () => {
        const ada = await api.user()
        const claims = decodeJwt(ada.token)
        const headers = {
          'an unknown extension': { ...hs256, crit: ['x'], x: 1 },
          'an empty list of extensions': { ...hs256, crit: [] },
          'extensions that are no list': { ...hs256, crit: 'exp' },
          'a registered name as an extension': { ...hs256, crit: ['alg'] },
          'an unencoded payload': { ...hs256, crit: ['b64'], b64: false },
          'alg in small letters': { ...hs256, alg: 'hs256' },
          'alg with a space': { ...hs256, alg: 'HS256 ' },
          'alg a list': { ...hs256, alg: ['HS256'] },
          'alg null': { ...hs256, alg: null },
          'alg none': { ...hs256, alg: 'none' },
          'alg of a key wrap': { ...hs256, alg: 'A256KW' },
        }
        await expectRefused(
          Object.fromEntries(Object.entries(headers).map(([kind, header]) => [kind, forge(header, claims)])),
        )
        await expectRefused({
          'HS384 in name and deed': forge({ alg: 'HS384' }, claims, secretKey, 'sha384'),
          'HS256 in name, HS512 in deed': forge(hs256, claims, secretKey, 'sha512'),
        })
        expect((await api.get('/users/me', { token: forge(hs256, claims) })).body.id).toBe(ada.id)
      })

      test('whose signature is spelled otherwise is refused, although it decodes to the right one', async () => {
        const { token } = await api.user()
        // Two bits of its last character say nothing.
        const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
        const next = digits[digits.indexOf(token.at(-1)!) + 1]
        await expectRefused({ padded: `${token}=`, 'another last character': token.slice(0, -1) + next })
      })

      test('that brings or names its own key is refused', async () => {
        const ada = await api.user()
        const claims = decodeJwt(ada.token)
        const own = crypto.getRandomValues(new Uint8Array(32))
        const jwk = { kty: 'oct', k: Buffer.from(own).toString('base64url'), alg: 'HS256' }
        const pair = async (alg: string) => {
          const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
          const header = { alg, jwk: await exportJWK(publicKey) }
          return new SignJWT(claims).setProtectedHeader(header).sign(privateKey)
        }
        await expectRefused({
          'a key in the header': forge({ ...hs256, jwk }, claims, own),
          'the address of a key': forge({ ...hs256, jku: 'https://evil.example/keys.json' }, claims, own),
          'the address of a certificate': forge({ ...hs256, x5u: 'https://evil.example/x.pem' }, claims, own),
          'a certificate': forge({ ...hs256, x5c: [jwk.k] }, claims, own),
          'a file as the key’s name': forge({ ...hs256, kid: '../../../../dev/null' }, claims, '\0'),
          'SQL as the key’s name': forge({ ...hs256, kid: "x' union select 'k" }, claims, 'k'),
          'our algorithm as the secret': forge(hs256, claims, 'HS256'),
          'the secret cut': forge(hs256, claims, secretKey.subarray(0, -1)),
          RS256: await pair('RS256'),
          PS256: await pair('PS256'),
          ES256: await pair('ES256'),
          EdDSA: await pair('EdDSA'),
          encrypted: await new EncryptJWT(claims)
            .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
            .encrypt(own),
        })
      })

      test('with claims of the wrong kind is refused, although the signature is right', async () => {
        const ada = await api.user()
        const claims = decodeJwt(ada.token)
        const { exp } = claims
        const wrong = {
          'exp null': { ...claims, exp: null },
          'exp true': { ...claims, exp: true },
          'exp a text': { ...claims, exp: String(exp) },
          'exp a list': { ...claims, exp: [exp] },
          'exp an object': { ...claims, exp: { $gt: 0 } },
          'exp zero': { ...claims, exp: 0 },
          'exp negative': { ...claims, exp: -exp! },
          'nbf a text': { ...claims, nbf: 'x' },
          'nbf to come': { ...claims, nbf: exp },
          'an empty sub': { ...claims, sub: '' },
          'an empty sid': { ...claims, sid: '' },
          'sub and sid changed over': { ...claims, sub: claims.sid, sid: claims.sub },
          'sub in a list': { ...claims, sub: [claims.sub] },
          'sid null': { ...claims, sid: null },
          'a list': [claims],
          'a text': 'claims',
          null: null,
          nothing: undefined,
        }
        await expectRefused(
          Object.fromEntries(Object.entries(wrong).map(([kind, value]) => [kind, forge(hs256, value)])),
        )
        expect((await api.get('/users/me', { token: ada.token })).status).toBe(200)
      })
    })

    describe('a hash of another cost than BCRYPT_COST', () => {
      const setCost = async ({ id, password }: User, cost: number) => {
        const hash = await Bun.password.hash(password, { algorithm: 'bcrypt', cost })
        await api.sql('update users set password_hash = $1 where id = $2', [hash, id])
        return hash
      }
      const stored = async ({ id }: User) => {
        const [row] = await api.sql('select password_hash, updated_at from users where id = $1', [id])
        return { hash: row![0] as string, updatedAt: row![1] }
      }

      test.each([5, 6])('%i is renewed by a good sign-in, and no session ends', async cost => {
        const ada = await api.user()
        await setCost(ada, cost)
        const before = await stored(ada)

        expect((await login({ username: ada.email, password: ada.password })).status).toBe(200)

        const { hash, updatedAt } = await stored(ada)
        expect(hash).toStartWith('$2b$04$')
        expect(await Bun.password.verify(ada.password, hash)).toBe(true)
        expect(updatedAt).toEqual(before.updatedAt)
        expect((await api.get('/auth/sessions', { token: ada.token })).body).toHaveLength(2)
        expect((await api.post('/auth/refresh', { json: { refresh_token: ada.refreshToken } })).status).toBe(
          200,
        )
      })

      test('is the only one that a sign-in renews', async () => {
        const ada = await api.user()
        await setCost(ada, 4)
        const before = await stored(ada)

        expect((await login({ username: ada.email, password: ada.password })).status).toBe(200)
        expect(await stored(ada)).toEqual(before)
      })

      test('stays after a bad one, and after a good one for a disabled account', async () => {
        const ada = await api.user()
        const hash = await setCost(ada, 5)

        expect((await login({ username: ada.email, password: 'wrong horse' })).status).toBe(401)
        await api.sql('update users set disabled_at = now() where id = $1', [ada.id])
        expect((await login({ username: ada.email, password: ada.password })).status).toBe(401)

        expect((await stored(ada)).hash).toBe(hash)
      })

      test('does not keep any of twenty sign-ins at once out', async () => {
        const ada = await api.user()
        await setCost(ada, 5)

        const answers = await Promise.all(
          Array.from({ length: 20 }, () => login({ username: ada.email, password: ada.password })),
        )

        expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
      })
    })

    test.each([
      ['composed, decomposed', '\u00e9', 'e\u0301'],
      ['composed, a capital that has no composed form', '\u01f0', 'J\u030c'],
    ])('one address in two Unicode forms is one account: %s', async (_, one, other) => {
      const name = crypto.randomUUID()

      expect((await register({ email: `jos${one}.${name}@example.com`, password })).status).toBe(201)

      const again = `jos${other}.${name}@example.com`
      expectError(await register({ email: again, password }), 400, 'email_taken')
      expect((await login({ username: again, password })).status).toBe(200)
    })

    describe('the own account', () => {
      test('is shown to its user', async () => {
        const ada = await api.user(`Ada.${crypto.randomUUID()}@Example.COM`)

        const { status, body } = await api.get('/users/me', { token: ada.token })

        expect(status).toBe(200)
        expect(body).toEqual({
          id: ada.id,
          email: ada.email,
          created_at: body.created_at,
          updated_at: body.created_at,
        })
      })

      test('is gone with its user, and so is the token', async () => {
        const ada = await api.user()
        await api.get('/users/me', { token: ada.token })
        await api.sql('delete from users where id = $1', [ada.id])

        // The token may still count as good; what it names is not there.
        const json = { current_password: ada.password, new_password: 'staple my battery' }
        expectError(await api.get('/users/me', { token: ada.token }), 401, 'invalid_token')
        expectError(await api.post('/users/me/password', { token: ada.token, json }), 401, 'invalid_token')
        await Bun.sleep(1100)

        expectError(await api.get('/users/me', { token: ada.token }), 401, 'invalid_token')
        expectError(
          await api.post('/tasks', { token: ada.token, json: { title: 'x' } }),
          401,
          'invalid_token',
        )
      })
    })
  },
  { LOGIN_LIMIT: '0', LOGIN_FAILURE_LIMIT: '0', REGISTER_LIMIT: '0' },
)

onBothDatabases(
  'how long a sign-in takes',
  api => {
    test('does not tell whether the address is known, what the hash costs, or that the account is disabled', async () => {
      const signIn = async (username: string, password = 'wrong horse') => {
        const answer = await api.post('/auth/login', { form: { username, password } })
        expect(answer.status).toBe(401)
      }
      const { email } = await api.user()
      const cheap = await api.user()
      const hash = await Bun.password.hash(cheap.password, { algorithm: 'bcrypt', cost: 5 })
      await api.sql('update users set password_hash = $1 where id = $2', [hash, cheap.id])
      const disabled = await api.user()
      await api.sql('update users set disabled_at = now() where id = $1', [disabled.id])

      const least = await leastCpuMs(
        {
          known: () => signIn(email),
          unknown: () => signIn(newAddress()),
          cheap: () => signIn(cheap.email),
          disabled: () => signIn(disabled.email, disabled.password),
        },
        10,
      )

      expect(unlike('known', least)).toEqual([])
    })

    test('does not grow with the square of the combining marks in the name', async () => {
      const signIn = async (username: string) =>
        expect((await api.post('/auth/login', { json: { username, password: 'wrong horse' } })).status).toBe(
          401,
        )
      const marks = '\u0301'.repeat(7500) + '\u0316'.repeat(7500)

      const least = await leastCpuMs(
        { marks: () => signIn(`a${marks}`), letters: () => signIn('ä'.repeat(15_000)) },
        3,
      )

      expect(least.marks).toBeLessThan(5 * least.letters!)
    })
  },
  { BCRYPT_COST: '9' },
)

onBothDatabases(
  'other settings of tokens',
  api => {
    test('decide their algorithm and how long they last', async () => {
      const ada = await api.user()
      const { iat, exp } = decodeJwt(ada.token)

      expect(decodeProtectedHeader(ada.token).alg).toBe('HS512')
      expect(exp! - iat!).toBe(300)
      expect((await api.get('/users/me', { token: ada.token })).status).toBe(200)
    })
  },
  { ALGORITHM: 'HS512', ACCESS_TOKEN_EXPIRE_MINUTES: '5' },
)
