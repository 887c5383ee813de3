import { t } from 'elysia'
import { instant, uuid } from '../../http/schema.ts'

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
