/**
 * For work that may take long: what is returned is to be called and awaited between its parts. The event loop is kept from
 * what else there is to do for `everyMs` at most.
 */
export function eventLoopTurns(everyMs = 10): () => Promise<void> | undefined {
  let beganAt = performance.now()
  return () => {
    if (performance.now() - beganAt < everyMs) return undefined
    return new Promise(resolve => {
      setImmediate(() => {
        beganAt = performance.now()
        resolve()
      })
    })
  }
}

/** `Array.map` in such turns. */
export function mapInTurns<From, To>(values: readonly From[], change: (value: From, index: number) => To) {
  const turn = eventLoopTurns()
  return Array.fromAsync(values, async (value, i) => {
    await turn()
    return change(value, i)
  })
}
