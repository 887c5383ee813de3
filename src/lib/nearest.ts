import { closest, distance } from 'fastest-levenshtein'

/** The name of `known`, which are in lower case, that is most like `name`; `undefined` when none is known. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  closest(name.toLowerCase(), known)

/** The name of `known` that `name` is most likely a misspelling of; `undefined` when none is close. */
export function intended(name: string, known: readonly string[]): string | undefined {
  const best = nearest(name, known)
  const far = Math.max(2, Math.floor(name.length / 3))
  return best !== undefined && distance(name.toLowerCase(), best) <= far ? best : undefined
}
