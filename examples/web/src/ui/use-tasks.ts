import { useEffect, useState } from 'preact/hooks'
import type { Account } from '../account.ts'
import { type Change, onCopy } from '../copy.ts'
import { waitingChanges } from '../outbox.ts'
import { type Filter, listCopy, listPage, type Page, withChanges } from '../tasks.ts'

const empty: Page = { tasks: [] }

/** The list that a user sees: pages of the service, or the copy while offline, with the changes that wait. */
export function useTasks(account: Account, filter: Filter, isOffline: boolean) {
  const [page, setPage] = useState(empty)
  const [changes, setChanges] = useState(new Map<number, Change>())

  useEffect(() => {
    let newest = 0
    // A change that was sent is shown until a page is here that was asked for afterwards: what the user did never flickers.
    async function load() {
      const run = ++newest
      const waiting = await waitingChanges(account)
      setChanges(shown => new Map([...shown, ...waiting]))
      const list = isOffline ? listCopy : listPage
      const loaded = await list(account, filter).catch(() => listCopy(account, filter))
      if (run !== newest) return
      setPage(loaded)
      setChanges(waiting)
    }
    load()
    const stop = onCopy(load)
    return () => {
      newest = 0
      stop()
    }
  }, [account, filter, isOffline])

  async function showMore() {
    const next = await listPage(account, filter, page.next)
    setPage({ ...next, tasks: [...page.tasks, ...next.tasks] })
  }

  return {
    tasks: withChanges(page.tasks, [...changes.values()], filter),
    waiting: changes.size,
    showMore: page.next ? showMore : undefined,
  }
}
