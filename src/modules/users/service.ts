import { eq } from 'drizzle-orm'
import type { Db } from '../../db/client.ts'
import { users } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'

export type UserService = ReturnType<typeof createUserService>

export function createUserService(db: Db) {
  const profile = {
    id: users.id,
    email: users.email,
    created_at: users.createdAt,
    updated_at: users.updatedAt,
  }

  return {
    /** The caller's account. Throws `invalid_token` when it has gone since the token was checked. */
    async profile(userId: string) {
      const [user] = await db.select(profile).from(users).where(eq(users.id, userId))
      if (!user) throw new AppError('invalid_token')
      return user
    },
  }
}
