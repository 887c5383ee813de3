import { Elysia } from 'elysia'
import type { Config } from '../../config/config.ts'
import type { Db } from '../../db/drizzle.ts'
import { body } from '../../http/body.ts'
import type { ClientOf } from '../../http/client.ts'
import { errors } from '../../http/error-responses.ts'
import { oauthBody, oauthErrors } from '../../http/oauth-body.ts'
import { query } from '../../http/query.ts'
import { requireUser } from '../../http/require-user.ts'
import { noContent } from '../../http/schema.ts'
import { isApiToken } from '../../lib/api-token.ts'
import type { ApiTokens } from './api-tokens.ts'
import {
  apiTokenCreate,
  apiTokenList,
  apiTokenParams,
  logoutQuery,
  newApiToken,
  refresh,
  revocation,
  revoked,
  sessionList,
  sessionParams,
  ticket,
  ticketRequest,
  tokenPair,
} from './model.ts'
import { passwordSignIn } from './password.ts'
import type { Passwords } from './password-hash.ts'
import type { Sessions } from './sessions.ts'
import type { Throttle } from './throttle.ts'
import type { Tickets } from './tickets.ts'

/** What sign-in methods may need; each names its own part of it. */
interface Parts {
  registration: Config['registration']
  db: Db
  sessions: Sessions
  apiTokens: ApiTokens
  passwords: Passwords
  throttle: Throttle
  tickets: Tickets
  clientOf: ClientOf
}

/** The sign-in methods side by side, each of which ends in `sessions.openSession`; and what follows a sign-in. */
export const authRoutes = (parts: Parts) =>
  new Elysia({ prefix: '/auth', tags: ['auth'] })
    .use(passwordSignIn(parts))
    .use(tokenRoutes(parts))
    .use(sessionRoutes(parts))
    .use(apiTokenRoutes(parts))
    .use(ticketRoutes(parts))

/** The OAuth 2 calls in which a token proves itself. */
const tokenRoutes = ({ sessions, apiTokens }: Parts) =>
  new Elysia()
    .use(oauthBody())
    .post('/refresh', ({ body }) => sessions.refresh(body.refresh_token), {
      body: refresh,
      response: { 200: tokenPair, ...oauthErrors('invalid_token') },
      detail: {
        operationId: 'refresh',
        summary: 'Get the next pair of tokens',
        description:
          'The OAuth 2 refresh grant, as a form or as JSON. A refresh token is good once. For ten seconds it returns the ' +
          'same pair again (two tabs, a lost answer); used later, it ends the whole session.',
      },
    })
    .post(
      '/revoke',
      async ({ body: { token } }) => {
        await (isApiToken(token) ? apiTokens.revoke(token) : sessions.endByToken(token))
        return {}
      },
      {
        body: revocation,
        response: { 200: revoked, ...oauthErrors() },
        detail: {
          operationId: 'revoke',
          summary: 'Revoke a token',
          description:
            'Token revocation by RFC 7009: ends the session that an access or a refresh token belongs to, or an API token, on every replica within a second. The token itself is enough. The answer is the same for a text that is no token.',
        },
      },
    )

/** The caller's own sessions. */
const sessionRoutes = ({ sessions }: Parts) =>
  new Elysia()
    .use(requireUser(sessions.authenticate, 'session'))
    .get('/sessions', ({ user }) => sessions.list(user), {
      response: { 200: sessionList },
      detail: { operationId: 'listSessions', summary: 'List your sessions', description: 'Newest first.' },
    })
    .delete(
      '/sessions/:id',
      async ({ user, params, status }) => status(204, await sessions.end(user, params.id)),
      {
        params: sessionParams,
        response: { 204: noContent, ...errors('session_not_found') },
        detail: {
          operationId: 'endSession',
          summary: 'End one of your sessions',
          description: 'Its tokens stop working on every replica within a second.',
        },
      },
    )
    .use(query())
    .post(
      '/logout',
      async ({ user, query, status }) => status(204, await sessions.logout(user, query.scope ?? 'local')),
      {
        query: logoutQuery,
        response: { 204: noContent },
        detail: {
          operationId: 'logout',
          summary: 'Sign out',
          description:
            'The tokens of the ended sessions stop working on every replica within a second. API tokens stay.',
        },
      },
    )

/** The caller's keys for programs. */
const apiTokenRoutes = ({ apiTokens, sessions, clientOf }: Parts) =>
  new Elysia()
    .use(requireUser(sessions.authenticate, 'session'))
    .get('/tokens', ({ user }) => apiTokens.list(user.id), {
      response: { 200: apiTokenList },
      detail: { operationId: 'listApiTokens', summary: 'List your API tokens', description: 'Newest first.' },
    })
    .delete(
      '/tokens/:id',
      async ({ user, params, status }) => status(204, await apiTokens.end(user.id, params.id)),
      {
        params: apiTokenParams,
        response: { 204: noContent, ...errors('token_not_found') },
        detail: {
          operationId: 'revokeApiToken',
          summary: 'Revoke an API token',
          description: 'It stops working on every replica within a second.',
        },
      },
    )
    .use(body())
    .post(
      '/tokens',
      async ({ user, body, request, status }) =>
        status(201, await apiTokens.create(user.id, body, clientOf(request))),
      {
        body: apiTokenCreate,
        response: {
          201: newApiToken,
          ...errors('incorrect_password', 'too_many_requests', 'too_many_tokens'),
        },
        detail: {
          operationId: 'createApiToken',
          summary: 'Make an API token',
          description:
            'A key for a program: it can do only what its `scopes` say, never sign in, and be revoked by itself. The answer is the only one that shows it. At most 50.',
        },
      },
    )

const ticketRoutes = ({ sessions, tickets }: Parts) =>
  new Elysia()
    .use(requireUser(sessions.authenticate, 'session'))
    .use(body())
    .post('/tickets', async ({ user, status }) => status(201, await tickets.issue(user)), {
      body: ticketRequest,
      response: { 201: ticket },
      detail: {
        operationId: 'createTicket',
        summary: 'Get a ticket for the live stream',
        description:
          'For a browser, whose `EventSource` sends no headers: open `/tasks/events?ticket=…` with it. It is good once, within a minute: to connect again, get another. The stream ends with the session that asked for it.',
      },
    })
