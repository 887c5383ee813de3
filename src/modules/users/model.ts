import { t } from 'elysia'
import { instant, uuid } from '../../http/schema.ts'

export const profile = t.Object(
  {
    id: uuid(),
    email: t.String({ examples: ['ada@example.com'] }),
    created_at: instant(),
    updated_at: instant(),
  },
  { title: 'Profile' },
)
