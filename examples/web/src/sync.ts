import type { Account } from './account.ts'
import { deleteCopy } from './copy.ts'
import { pull } from './feed.ts'
import { push } from './outbox.ts'
import { signOut } from './session.ts'

/** Sends the user's changes and fetches those of other devices, one tab at a time. Returns what was refused, and why. */
export async function sync(account: Account): Promise<string[]> {
  return navigator.locks.request(`sync ${account.userId}`, async () => {
    const refusals = await push(account)
    await pull(account)
    return refusals
  })
}

/** Signs out and deletes the copy, also what waits to be sent. */
export async function leave({ userId }: Account) {
  await Promise.all([signOut(), deleteCopy(userId)])
}
