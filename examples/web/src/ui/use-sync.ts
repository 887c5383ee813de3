import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { listen } from '../live.ts'
import { Problem } from '../problem.ts'
import { sync } from '../sync.ts'

const everySeconds = 30
const occasions = ['online', 'offline', 'focus']

/** Syncs when something has changed elsewhere, when the page or the network comes back, and when asked. */
export function useSync() {
  const [isOffline, setOffline] = useState(!navigator.onLine)
  const [refusals, setRefusals] = useState<string[]>([])
  const timer = useRef<number>(undefined)

  const syncNow = useCallback(async () => {
    let seconds = everySeconds
    try {
      const refused = await sync()
      setOffline(false)
      if (refused.length > 0) setRefusals(refused)
    } catch (error) {
      // A call without an answer throws a TypeError.
      setOffline(true)
      seconds = (error instanceof Problem && error.retryAfterSeconds) || 5
    }
    clearTimeout(timer.current)
    timer.current = setTimeout(syncNow, seconds * 1000)
  }, [])

  useEffect(() => {
    const stop = new AbortController()
    listen(syncNow, stop.signal)
    syncNow()
    for (const name of occasions) addEventListener(name, syncNow)
    return () => {
      for (const name of occasions) removeEventListener(name, syncNow)
      clearTimeout(timer.current)
      stop.abort()
    }
  }, [syncNow])

  return { isOffline, refusals, syncNow }
}
