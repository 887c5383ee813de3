import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import type { ClientOf } from '../../http/client.ts'
import { errors } from '../../http/error-responses.ts'
import { requireUser } from '../../http/require-user.ts'
import { noContent } from '../../http/schema.ts'
import type { Sessions } from '../auth/sessions.ts'
import { accountDeletion, emailChange, passwordChange, profile } from './model.ts'
import type { UserService } from './service.ts'

interface Parts {
  users: UserService
  sessions: Pick<Sessions, 'authenticate'>
  clientOf: ClientOf
}

export const userRoutes = ({ users, sessions, clientOf }: Parts) =>
  new Elysia({ prefix: '/users', tags: ['users'] })
    .use(requireUser(sessions.authenticate, { read: 'account:read', write: 'session' }))
    .get('/me', ({ user }) => users.profile(user.id), {
      response: { 200: profile },
      detail: {
        operationId: 'getProfile',
        summary: 'Show your account',
        description: 'The account of the token.',
      },
    })
    .use(body())
    .patch('/me', ({ user, body, request }) => users.changeEmail(user.id, body, clientOf(request)), {
      body: emailChange,
      response: { 200: profile, ...errors('email_taken', 'incorrect_password', 'too_many_requests') },
      detail: {
        operationId: 'changeEmail',
        summary: 'Change your e-mail address',
        description: 'Needs the current password. You stay signed in.',
      },
    })
    .post(
      '/me/password',
      async ({ user, body, request, status }) =>
        status(204, await users.changePassword(user, body, clientOf(request))),
      {
        body: passwordChange,
        response: { 204: noContent, ...errors('incorrect_password', 'too_many_requests') },
        detail: {
          operationId: 'changePassword',
          summary: 'Change your password',
          description:
            'Ends every other session of the account, and its API tokens unless `keep_tokens` is true.',
        },
      },
    )
    .delete(
      '/me',
      async ({ user, body, request, status }) =>
        status(204, await users.remove(user, body.password, clientOf(request))),
      {
        body: accountDeletion,
        response: { 204: noContent, ...errors('incorrect_password', 'too_many_requests') },
        detail: {
          operationId: 'deleteAccount',
          summary: 'Delete your account',
          description: 'Deletes the account, its sessions, its API tokens and its tasks for good.',
        },
      },
    )
