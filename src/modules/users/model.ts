import { t } from 'elysia'
import { instant } from '../../http/schema.ts'
import { account, currentPassword, email, newPassword } from '../auth/model.ts'

const [example] = account.examples

export const profile = t.Object(
  { ...account.properties, updated_at: instant() },
  { title: 'Profile', examples: [{ ...example, updated_at: example.created_at }] },
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
    keep_tokens: t.Optional(
      t.Boolean({ description: 'Whether API tokens stay valid; if it is not sent, they end.' }),
    ),
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
