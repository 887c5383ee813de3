import { t } from 'elysia'
import { instant, instantInput, integer, nullable, oneOf, pathId, text, uuid } from '../../http/schema.ts'
import { emailPattern, passwordBytesMax, passwordLengthMin } from '../../lib/credentials.ts'
import { parseInstant } from '../../lib/instant.ts'
import { tokenScopes } from '../../lib/scope.ts'

export const email = text({
  pattern: emailPattern,
  format: 'email',
  // Without the pattern, which no generator of clients can use.
  documented: { type: 'string', format: 'idn-email', maxLength: 254, examples: ['ada@example.com'] },
})

/** More than an address has in any form. The normalization of combining marks takes the square of their number. */
const normalizedLengthMax = 1000

/** An e-mail address as it is compared: without regard to case. The lower case of a text in NFC need not be in NFC. */
export function normalizeEmail(email: string): string {
  const lowerCase = email.trim().toLowerCase()
  return lowerCase.length > normalizedLengthMax ? lowerCase : lowerCase.normalize('NFC')
}

export const newPassword = text({
  minLength: passwordLengthMin,
  maxBytes: passwordBytesMax,
  format: 'password',
  description: `At least ${passwordLengthMin} characters, at most ${passwordBytesMax} bytes of UTF-8 (the limit of bcrypt).`,
  examples: ['correct horse battery'],
})

export const registration = t.Object(
  { email, password: newPassword },
  { title: 'Registration', examples: [{ email: 'ada@example.com', password: 'correct horse battery' }] },
)

export const account = t.Object(
  { id: uuid(), email: t.String({ format: 'idn-email' }), created_at: instant() },
  {
    title: 'Account',
    examples: [
      {
        id: '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e',
        email: 'ada@example.com',
        created_at: '2026-11-23T05:46:14.120000Z',
      },
    ],
  },
)

const ignored = { description: 'Accepted for OAuth 2 clients, and ignored.', examples: [''] }
const oauthClient = {
  scope: t.Optional(text(ignored)),
  client_id: t.Optional(text(ignored)),
  client_secret: t.Optional(text({ ...ignored, format: 'password' })),
}

/** The OAuth 2 password grant (RFC 6749, 4.3.2); as JSON also with `email` in the place of `username`. */
const passwordGrant = t.Object(
  {
    username: text({ description: 'The e-mail address.', examples: ['ada@example.com'] }),
    password: text({ format: 'password', examples: ['correct horse battery'] }),
    grant_type: t.Optional(t.Literal('password')),
    ...oauthClient,
  },
  { title: 'Login' },
)

/** The OAuth 2 refresh grant (RFC 6749, 6). */
export const refresh = t.Object(
  {
    refresh_token: text({ format: 'password', description: 'The latest one.' }),
    grant_type: t.Optional(t.Literal('refresh_token')),
    ...oauthClient,
  },
  {
    title: 'Refresh',
    form: true,
    examples: [{ grant_type: 'refresh_token', refresh_token: 'AaIHBzUNdgCokPR7KK0BR1tQkG5Q…' }],
  },
)

/** The token endpoint: either grant, by its `grant_type`. The document shows the form of the password grant alone. */
export const login = t.Union(
  [
    t.Object({ ...passwordGrant.properties, email: t.Optional(text()) }),
    t.Object({ ...refresh.properties, grant_type: t.Literal('refresh_token') }),
  ],
  {
    discriminator: 'grant_type',
    form: true,
    documented: passwordGrant,
    readBody: withUsername,
    examples: [{ username: 'ada@example.com', password: 'correct horse battery' }],
  },
)

/** Accepts `email` for OAuth 2's `username`. */
export function withUsername(body: unknown) {
  const fields = body as { email?: unknown } | undefined | null
  return fields?.email === undefined ? body : { username: fields.email, ...fields }
}

export const tokenPair = t.Object(
  {
    access_token: t.String({ description: 'A JWT, for the header `Authorization: Bearer …`.' }),
    token_type: t.Literal('bearer'),
    expires_in: integer({ description: 'Seconds until the access token expires.', examples: [86_400] }),
    refresh_token: t.String({ description: 'Valid once, within 30 days, for the next pair of tokens.' }),
  },
  {
    title: 'TokenPair',
    examples: [
      {
        access_token: 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIwMTlhOWMzZCJ9.c2lnbmF0dXJl',
        token_type: 'bearer',
        expires_in: 86_400,
        refresh_token: 'pP0cVxU1m4m6ZkzJm3m0Yw7c1xJ2l0y5u8R3n9bT6qA',
      },
    ],
  },
)

export type TokenPair = typeof tokenPair.static

export const logoutQuery = t.Object({
  scope: t.Optional(
    oneOf(['local', 'all', 'others'], {
      description: 'Ends this session (default), all of your sessions, or all but this one.',
    }),
  ),
})

export const sessionParams = t.Object({ id: pathId('The id of a session.') })

const session = t.Object(
  {
    id: uuid(),
    created_at: instant(),
    last_used_at: instant({ description: 'To within a few minutes.' }),
    expires_at: instant({ description: 'Each refresh extends it.' }),
    user_agent: nullable(t.String({ examples: ['Mozilla/5.0 …'] })),
    ip: nullable(t.String({ examples: ['203.0.113.7'] })),
    current: t.Boolean({ description: 'Whether this request belongs to it.' }),
  },
  { title: 'Session' },
)

export const sessionList = t.Array(session)

/** Token revocation (RFC 7009, 2.1). */
export const revocation = t.Object(
  {
    token: text({ format: 'password', description: 'An access token, a refresh token or an API token.' }),
    token_type_hint: t.Optional(text({ description: 'Not needed: a token shows what it is.' })),
    client_id: oauthClient.client_id,
    client_secret: oauthClient.client_secret,
  },
  { title: 'Revocation', form: true, examples: [{ token: 'AaIHBzUNdgCokPR7KK0BR1tQkG5Q…' }] },
)

/** Clients ignore what it says; some need it to be JSON. */
export const revoked = t.Object({}, { title: 'Revoked' })

/** The password of the account, again: what a stolen access token must not be enough for. */
export const currentPassword = text({ format: 'password', examples: ['correct horse battery'] })

const tokenName = { description: 'What it is for.', examples: ['Backup script'] }
const scope = oneOf(tokenScopes, {
  description: '`tasks:write` includes `tasks:read`.',
  examples: ['tasks:read'],
})
const expiry = { description: '`null`: never.' }

/** The problem of an instant that is not in the future, or more than a year ahead. */
export function withinYear(instant: string): { type: string; msg: string } | undefined {
  const time = Date.parse(parseInstant(instant)!)
  const latest = new Date()
  if (time <= latest.getTime()) return { type: 'datetime_future', msg: 'Input should be in the future' }
  latest.setUTCFullYear(latest.getUTCFullYear() + 1)
  if (time <= latest.getTime()) return undefined
  return { type: 'less_than_equal', msg: 'Input should be at most one year ahead' }
}

export const apiTokenCreate = t.Object(
  {
    name: text({ minLength: 1, maxLength: 100, notBlank: true, ...tokenName }),
    scopes: t.Array(scope, { minItems: 1, maxItems: 20, description: 'What it may do.' }),
    expires_at: t.Optional(
      nullable(
        instantInput({
          problem: withinYear,
          description: 'At most a year ahead; without it, in 90 days. `null`: never.',
          // No date is right for ever.
          examples: [null],
        }),
      ),
    ),
    current_password: currentPassword,
  },
  {
    title: 'ApiTokenCreate',
    examples: [{ name: 'Backup script', scopes: ['tasks:read'], current_password: 'correct horse battery' }],
  },
)

export type ApiTokenCreate = typeof apiTokenCreate.static

const apiTokenFields = {
  id: uuid(),
  name: t.String(tokenName),
  scopes: t.Array(scope),
  expires_at: nullable(instant(expiry)),
  created_at: instant(),
}

export const newApiToken = t.Object(
  {
    ...apiTokenFields,
    token: t.String({
      description: 'For the header `Authorization: Bearer …`. It is shown only now.',
      examples: ['todo_pat_…'],
    }),
  },
  { title: 'CreatedApiToken' },
)

const apiToken = t.Object(
  {
    ...apiTokenFields,
    prefix: t.String({ description: 'The first 12 characters of the token.', examples: ['todo_pat_f3K'] }),
    last_used_at: nullable(instant({ description: 'To within a few minutes.' })),
  },
  { title: 'ApiToken' },
)

export const apiTokenList = t.Array(apiToken)

export const apiTokenParams = t.Object({ id: pathId('The id of an API token.') })

export const ticketRequest = t.Object(
  { for: oneOf(['events'], { description: 'What it opens: `GET /tasks/events`.' }) },
  { title: 'TicketRequest', examples: [{ for: 'events' }] },
)

export const ticket = t.Object(
  {
    ticket: t.String({ description: 'For the address: `?ticket=…`.' }),
    expires_in: integer({ description: 'Seconds in which it has to be used.', examples: [60] }),
  },
  {
    title: 'Ticket',
    examples: [
      { ticket: 'AZqcPVLgfRuMdz9KW2x9jrZ0m3yqW7rD2cXbVnL5sT8uQeGkHj4oPiAfRzYw1Mx6', expires_in: 60 },
    ],
  },
)

export type Ticket = typeof ticket.static
