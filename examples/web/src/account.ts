import { createApi } from './api.ts'
import type { Api } from './client.ts'
import { type Copy, openCopy } from './copy.ts'
import type { Session } from './session.ts'

/** What is one user's only. After a sign-out calls fail and the copy is closed, so a sync that still runs ends there. */
export interface Account {
  userId: string
  sessionId: string
  api: Api
  copy: Promise<Copy>
}

export function openAccount({ id, user }: Session): Account {
  return { userId: user.id, sessionId: id, api: createApi(id), copy: openCopy(user.id) }
}
