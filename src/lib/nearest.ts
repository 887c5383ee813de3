import { closest, distance } from 'fastest-levenshtein'

/** Of a longer name only the beginning is compared: the time grows with the length. */
const comparedMax = 100

const compared = (name: string) => name.slice(0, comparedMax).toLowerCase()

/** The name of `known`, which are in lower case, that is most like `name`; `undefined` when none is known. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  closest(compared(name), known)

/** Whether a name may be meant by another one: fewer than half of the letters differ. */
export const isLike = (name: string, other: string): boolean =>
  distance(compared(name), other) < compared(name).length / 2

/** What may be meant by a name that is not among `known`: the nearest if it is like it, else all. */
export function hintFor(name: string, known: readonly string[]): string {
  const found = nearest(name, known)
  if (found === undefined) return 'none is known here'
  return isLike(name, found) ? `the nearest known one is '${found}'` : `known are ${known.join(', ')}`
}
