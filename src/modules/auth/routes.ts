import { Elysia } from 'elysia'
import type { Db } from '../../db/drizzle.ts'
import { body, query } from '../../http/body.ts'
import type { ClientOf } from '../../http/client.ts'
import { oauthBody, oauthErrors } from '../../http/oauth-body.ts'
import { requireUser } from '../../http/require-user.ts'
import { errors, noContent } from '../../http/schema.ts'
import {
  logoutQuery,
  refresh,
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
  db: Db
  sessions: Sessions
  passwords: Passwords
  throttle: Throttle
  tickets: Tickets
  clientOf: ClientOf
}

/** The sign-in methods side by side, each of which ends in `sessions.openSession`; and what follows a sign-in. */
export const authRoutes = (parts: Parts) =>
  new Elysia({ prefix: '/auth', tags: ['auth'] })
    .use(passwordSignIn(parts))
    .use(refreshRoutes(parts.sessions))
    .use(sessionRoutes(parts.sessions))
    .use(ticketRoutes(parts.sessions, parts.tickets))

const refreshRoutes = (sessions: Sessions) =>
  new Elysia().use(oauthBody()).post('/refresh', ({ body }) => sessions.refresh(body.refresh_token), {
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

/** The caller's own sessions. */
const sessionRoutes = (sessions: Sessions) =>
  new Elysia()
    .use(requireUser(sessions.authenticate))
    .get('/sessions', ({ user }) => sessions.list(user), {
      response: { 200: sessionList },
      detail: { operationId: 'listSessions', summary: 'List your sessions', description: 'Newest first.' },
    })
    .delete(
      '/sessions/:id',
      async ({ user, params, status }) => {
        await sessions.end(user, params.id)
        return status(204, undefined)
      },
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
      async ({ user, query, status }) => {
        await sessions.logout(user, query.scope ?? 'local')
        return status(204, undefined)
      },
      {
        query: logoutQuery,
        response: { 204: noContent },
        detail: {
          operationId: 'logout',
          summary: 'Sign out',
          description: 'The tokens of the ended sessions stop working on every replica within a second.',
        },
      },
    )

const ticketRoutes = (sessions: Sessions, tickets: Tickets) =>
  new Elysia()
    .use(requireUser(sessions.authenticate))
    .use(body())
    .post('/tickets', async ({ user, status }) => status(201, await tickets.issue(user)), {
      body: ticketRequest,
      response: { 201: ticket },
      detail: {
        operationId: 'createTicket',
        summary: 'Get a ticket for the live stream',
        description:
          'For a browser, whose `EventSource` sends no headers: open `/tasks/events?ticket=…` with it. It is good once, within a minute. The stream ends with the session that asked for it.',
      },
    })
