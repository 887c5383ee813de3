/** How long the event loop may be kept from what else there is to do. */
const turnMs = 10

/** For work that may take long: what is returned is to be called and awaited between its parts. A turn comes every `turnMs`. */
export function eventLoopTurns(): () => Promise<void> | undefined {
  let beganAt = performance.now()
  return () => {
    if (performance.now() - beganAt < turnMs) return undefined
    return new Promise(resolve => {
      setImmediate(() => {
        beganAt = performance.now()
        resolve()
      })
    })
  }
}

/** `Array.map` in such turns. */
export async function mapInTurns<From, To>(
  values: readonly From[],
  change: (value: From, index: number) => To,
): Promise<To[]> {
  const changed: To[] = []
  const turn = eventLoopTurns()
  for (const [i, value] of values.entries()) {
    await turn()
    changed.push(change(value, i))
  }
  return changed
}
