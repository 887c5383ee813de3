import { distance } from 'fastest-levenshtein'

/** The name of `known` that `name` is most likely a misspelling of; `undefined` when none is close. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const far = Math.max(2, Math.floor(name.length / 3))
  const distances = known.map(other => ({ other, steps: distance(name.toLowerCase(), other.toLowerCase()) }))
  const [best] = distances.sort((a, b) => a.steps - b.steps)
  return best && best.steps <= far ? best.other : undefined
}
