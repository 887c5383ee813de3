import { Elysia } from 'elysia'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { errors, signedIn } from '../../http/schema.ts'
import type { Caller } from '../auth/service.ts'
import { profile } from './model.ts'
import type { UserService } from './service.ts'

export const userRoutes = (users: UserService, authenticate: Authenticate<Caller>) =>
  new Elysia({ prefix: '/users', tags: ['users'], detail: signedIn })
    .use(requireUser(authenticate))
    .get('/me', ({ user }) => users.profile(user.id), {
      response: { 200: profile, ...errors('user') },
      detail: { operationId: 'getProfile', summary: 'Show your account' },
    })
