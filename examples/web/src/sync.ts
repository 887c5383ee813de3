import { claimCopy, clearCopy } from './copy.ts'
import { pull } from './feed.ts'
import { push } from './outbox.ts'
import { session, signOut } from './session.ts'

/** Sends the user's changes and fetches those of other devices, one tab at a time. Returns what was refused, and why. */
export async function sync(): Promise<string[]> {
  return navigator.locks.request('sync', async () => {
    const user = session()
    if (!user) return []
    await claimCopy(user.email)
    const refusals = await push()
    await pull()
    return refusals
  })
}

/** Signs out and deletes the copy, as soon as no tab is using it. */
export async function leave() {
  await signOut()
  await navigator.locks.request('sync', clearCopy)
}
