import { useEffect, useState } from 'preact/hooks'
import { type Change, copy, onCopy } from '../copy.ts'
import { type Filter, listCopy, listPage, type Page, withChanges } from '../tasks.ts'

const empty: Page = { tasks: [] }

/** The list that a user sees: pages of the service, or the copy while offline, with the changes that wait. */
export function useTasks(filter: Filter, isOffline: boolean) {
  const [page, setPage] = useState(empty)
  const [changes, setChanges] = useState<Change[]>([])

  useEffect(() => {
    let isStale = false
    async function load() {
      const list = isOffline ? listCopy : listPage
      const loaded = await list(filter).catch(() => listCopy(filter))
      if (!isStale) setPage(loaded)
    }
    load()
    const stop = onCopy('tasks', load)
    return () => {
      isStale = true
      stop()
    }
  }, [filter, isOffline])

  useEffect(() => {
    const load = async () => setChanges(await (await copy).getAll('outbox'))
    load()
    return onCopy('outbox', load)
  }, [])

  async function showMore() {
    const next = await listPage(filter, page.next)
    setPage({ ...next, tasks: [...page.tasks, ...next.tasks] })
  }

  return {
    tasks: withChanges(page.tasks, changes, filter),
    changes,
    showMore: page.next ? showMore : undefined,
  }
}
