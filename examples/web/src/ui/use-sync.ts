import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import type { Account } from '../account.ts'
import { listen } from '../live.ts'
import { Problem } from '../problem.ts'
import { sync } from '../sync.ts'

const everySeconds = 30
const occasions = ['online', 'offline', 'focus']

/** Syncs when something has changed elsewhere, when the page or the network comes back, and when asked. */
export function useSync(account: Account) {
  const [isOffline, setOffline] = useState(!navigator.onLine)
  const [refusals, setRefusals] = useState<string[]>([])
  const timer = useRef<number>(undefined)
  const [stop] = useState(() => new AbortController())

  const syncNow = useCallback(async () => {
    let seconds = everySeconds
    try {
      const refused = await sync(account)
      setOffline(false)
      if (refused.length > 0) setRefusals(refused)
    } catch (error) {
      // A call without an answer throws a TypeError.
      setOffline(true)
      seconds = (error instanceof Problem && error.retryAfterSeconds) || 5
    }
    clearTimeout(timer.current)
    if (!stop.signal.aborted) timer.current = setTimeout(syncNow, seconds * 1000)
  }, [account, stop])

  useEffect(() => {
    listenForAllTabs(account, syncNow, stop.signal)
    syncNow()
    for (const name of occasions) addEventListener(name, syncNow)
    return () => {
      for (const name of occasions) removeEventListener(name, syncNow)
      clearTimeout(timer.current)
      stop.abort()
    }
  }, [account, stop, syncNow])

  return { isOffline, refusals, syncNow }
}

/** A browser has six connections to a service that speaks HTTP/1.1, and a stream takes one: only one tab has it. */
function listenForAllTabs({ api, sessionId }: Account, onNews: () => void, signal: AbortSignal) {
  const listenHere = () => listen(api, onNews, signal)
  navigator.locks.request(`live ${sessionId}`, { signal }, listenHere).catch(() => {})
}
