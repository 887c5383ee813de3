/** Calls `work` at most once a minute, and drops the other calls. */
export function onceAMinute<Args extends unknown[]>(work: (...args: Args) => void): (...args: Args) => void {
  let silentUntil = 0
  return (...args) => {
    if (performance.now() < silentUntil) return
    silentUntil = performance.now() + 60_000
    work(...args)
  }
}
