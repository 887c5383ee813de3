import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { errors, noContent, signedIn } from '../../http/schema.ts'
import type { Caller, Client } from '../auth/service.ts'
import { accountDeletion, emailChange, passwordChange, profile } from './model.ts'
import type { UserService } from './service.ts'

interface Parts {
  users: UserService
  authenticate: Authenticate<Caller>
  /** Where a request came from. */
  clientOf: (request: Request) => Client
}

export const userRoutes = ({ users, authenticate, clientOf }: Parts) =>
  new Elysia({ prefix: '/users', tags: ['users'], detail: signedIn })
    .use(requireUser(authenticate))
    .use(body())
    .get('/me', ({ user }) => users.profile(user.id), {
      response: { 200: profile, ...errors('user') },
      detail: { operationId: 'getProfile', summary: 'Show your account' },
    })
    .patch('/me', ({ user, body, request }) => users.changeEmail(user.id, body, clientOf(request)), {
      body: emailChange,
      response: { 200: profile, ...errors('user', 'body', 'email_taken', 'too_many_requests') },
      detail: { operationId: 'changeEmail', summary: 'Change your e-mail address' },
    })
    .post(
      '/me/password',
      async ({ user, body, request, status }) => {
        await users.changePassword(user, body, clientOf(request))
        return status(204, undefined)
      },
      {
        body: passwordChange,
        response: { 204: noContent, ...errors('user', 'body', 'incorrect_password', 'too_many_requests') },
        detail: {
          operationId: 'changePassword',
          summary: 'Change your password',
          description: 'Every other session of the account ends.',
        },
      },
    )
    .delete(
      '/me',
      async ({ user, body, request, status }) => {
        await users.remove(user, body.password, clientOf(request))
        return status(204, undefined)
      },
      {
        body: accountDeletion,
        response: { 204: noContent, ...errors('user', 'body', 'incorrect_password', 'too_many_requests') },
        detail: {
          operationId: 'deleteAccount',
          summary: 'Delete your account',
          description: 'The account, its sessions and its tasks are gone for good.',
        },
      },
    )
