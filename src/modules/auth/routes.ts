import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import { errors } from '../../http/schema.ts'
import { account, login, registration, tokenPair } from './model.ts'
import type { AuthService } from './service.ts'

/** Addresses under `/auth`: what a person without a token may call. `clientIp` says where a request came from. */
export const authRoutes = (auth: AuthService, clientIp: (request: Request) => string | null) =>
  new Elysia({ prefix: '/auth', tags: ['auth'] })
    .use(body())
    .post('/register', async ({ body, status }) => status(201, await auth.register(body)), {
      body: registration,
      response: { 201: account, ...errors('email_taken', 'body') },
      detail: {
        operationId: 'register',
        summary: 'Create an account',
        description: 'One account per e-mail address, whatever the case of its letters.',
      },
    })
    .post(
      '/login',
      ({ body, request, headers }) =>
        auth.login(body, { ip: clientIp(request), userAgent: headers['user-agent']?.slice(0, 500) ?? null }),
      {
        body: login,
        response: { 200: tokenPair, ...errors('incorrect_login', 'body') },
        detail: {
          operationId: 'login',
          summary: 'Sign in',
          description:
            'The OAuth 2 password grant: a form with `username` (the e-mail address) and `password`. JSON works too.',
        },
      },
    )
