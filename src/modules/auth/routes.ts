import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { errors, noContent, signedIn, withHeaders } from '../../http/schema.ts'
import {
  account,
  login,
  logoutQuery,
  nameFromEmail,
  refresh,
  registration as registrationBody,
  sessionList,
  sessionParams,
  tokenPair,
} from './model.ts'
import { oauthErrors, withOAuthError } from './oauth.ts'
import type { AuthService, Caller, Client } from './service.ts'
import type { Throttle } from './throttle.ts'

interface Parts {
  auth: AuthService
  throttle: Throttle
  /** Where a request came from. */
  clientOf: (request: Request) => Client
}

/** What is left of a limit, see `throttle.ts`. */
const limitHeaders = ['RateLimit', 'RateLimit-Policy']

/** What may be called without an access token. */
export const authRoutes = ({ auth, throttle, clientOf }: Parts) => {
  /** Before the work: counts the call, says in headers what is left, and refuses what is too much. */
  const limited =
    (kind: 'login' | 'register') =>
    async ({ request, set }: { request: Request; set: { headers: object } }) => {
      Object.assign(set.headers, await throttle.address(kind, clientOf(request).ip))
    }

  const registration = new Elysia({ prefix: '/auth', tags: ['auth'] })
    .use(body({ forms: true }))
    .post(
      '/register',
      async ({ body, request, status }) => status(201, await auth.register(body, clientOf(request))),
      {
        beforeHandle: limited('register'),
        body: registrationBody,
        response: {
          201: withHeaders(account, ...limitHeaders),
          ...errors('email_taken', 'body', 'too_many_requests'),
        },
        detail: {
          operationId: 'register',
          summary: 'Create an account',
          description: 'One account per e-mail address, whatever the case of its letters.',
        },
      },
    )

  const limitedLogin = limited('login')
  const grants = new Elysia({ prefix: '/auth', tags: ['auth'] })
    .use(oauthErrors)
    .use(body({ forms: true }))
    .post(
      '/login',
      async ({ body, request }) =>
        body.grant_type === 'refresh_token'
          ? auth.refresh(body.refresh_token)
          : auth.login(body, clientOf(request)),
      {
        transform: nameFromEmail,
        beforeHandle: async context => {
          if (context.body.grant_type !== 'refresh_token') await limitedLogin(context)
        },
        body: login,
        response: {
          200: withHeaders(tokenPair, ...limitHeaders),
          ...withOAuthError(errors('incorrect_login', 'invalid_token', 'body', 'too_many_requests')),
        },
        detail: {
          operationId: 'login',
          summary: 'Sign in',
          description:
            'The OAuth 2 password grant: a form with `username` (the e-mail address) and `password`. JSON works too. ' +
            'It is the token endpoint, so a client with one address for both grants may refresh here: a form with ' +
            '`grant_type=refresh_token` and `refresh_token`.',
        },
      },
    )
    .post('/refresh', ({ body }) => auth.refresh(body.refresh_token), {
      body: refresh,
      response: { 200: tokenPair, ...withOAuthError(errors('invalid_token', 'body')) },
      detail: {
        operationId: 'refresh',
        summary: 'Get the next pair of tokens',
        description:
          'The OAuth 2 refresh grant, as a form or as JSON. A refresh token is good once. For ten seconds it gives the ' +
          'same pair again (two tabs, a lost answer); used later, it ends the whole session.',
      },
    })

  return new Elysia().use(registration).use(grants)
}

/** The caller's own sessions. */
export const sessionRoutes = (auth: AuthService, authenticate: Authenticate<Caller>) =>
  new Elysia({ prefix: '/auth', tags: ['auth'], detail: signedIn })
    .use(requireUser(authenticate))
    .post(
      '/logout',
      async ({ user, query, status }) => {
        await auth.logout(user, query.scope ?? 'local')
        return status(204, undefined)
      },
      {
        query: logoutQuery,
        response: { 204: noContent, ...errors('user', 'query') },
        detail: {
          operationId: 'logout',
          summary: 'Sign out',
          description: 'The tokens of the ended sessions stop working on every replica within a second.',
        },
      },
    )
    .get('/sessions', ({ user }) => auth.sessions(user), {
      response: { 200: sessionList, ...errors('user') },
      detail: { operationId: 'listSessions', summary: 'List your sessions', description: 'Newest first.' },
    })
    .delete(
      '/sessions/:id',
      async ({ user, params, status }) => {
        await auth.endSession(user, params.id)
        return status(204, undefined)
      },
      {
        params: sessionParams,
        response: { 204: noContent, ...errors('user', 'session_not_found') },
        detail: { operationId: 'endSession', summary: 'End one of your sessions' },
      },
    )
