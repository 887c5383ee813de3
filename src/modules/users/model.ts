import { t } from 'elysia'
import { instant, uuid } from '../../http/schema.ts'
import { currentPassword, email, newPassword } from '../auth/model.ts'

export const profile = t.Object(
  {
    id: uuid(),
    email: t.String({ format: 'email' }),
    created_at: instant(),
    updated_at: instant(),
  },
  {
    title: 'Profile',
    examples: [
      {
        id: '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e',
        email: 'ada@example.com',
        created_at: '2026-11-23T05:46:14.120000Z',
        updated_at: '2026-11-23T05:46:14.120000Z',
      },
    ],
  },
)

export const emailChange = t.Object(
  { email, current_password: currentPassword },
  {
    title: 'EmailChange',
    examples: [{ email: 'lovelace@example.com', current_password: 'correct horse battery' }],
  },
)

export const passwordChange = t.Object(
  {
    current_password: currentPassword,
    new_password: newPassword,
    keep_tokens: t.Optional(t.Boolean({ description: 'Whether API tokens stay valid.', default: false })),
  },
  {
    title: 'PasswordChange',
    examples: [{ current_password: 'correct horse battery', new_password: 'staple my new battery' }],
  },
)

export const accountDeletion = t.Object(
  { password: currentPassword },
  { title: 'AccountDeletion', examples: [{ password: 'correct horse battery' }] },
)
