/** How long the event loop may be kept from what else there is to do. */
const turnMs = 10

/** `Array.map` for what may take long: the event loop gets a turn every `turnMs`. */
export async function mapInTurns<From, To>(
  values: readonly From[],
  change: (value: From, index: number) => To,
): Promise<To[]> {
  const changed: To[] = []
  let beganAt = performance.now()
  for (const [i, value] of values.entries()) {
    if (performance.now() - beganAt > turnMs) {
      await new Promise(setImmediate)
      beganAt = performance.now()
    }
    changed.push(change(value, i))
  }
  return changed
}
