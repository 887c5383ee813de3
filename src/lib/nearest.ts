import { distance } from 'fastest-levenshtein'

/** The name of `known` that is most like `name`, whatever the case; `undefined` when none is known. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  return known.toSorted((a, b) => stepsBetween(name, a) - stepsBetween(name, b))[0]
}

/** The name of `known` that `name` is most likely a misspelling of; `undefined` when none is close. */
export function intended(name: string, known: readonly string[]): string | undefined {
  const best = nearest(name, known)
  const far = Math.max(2, Math.floor(name.length / 3))
  return best !== undefined && stepsBetween(name, best) <= far ? best : undefined
}

const stepsBetween = (a: string, b: string) => distance(a.toLowerCase(), b.toLowerCase())
