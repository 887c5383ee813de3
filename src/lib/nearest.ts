import { closest } from 'fastest-levenshtein'

/** Of a longer name only the beginning is compared: the time grows with the length. */
const comparedMax = 100

/** The name of `known`, which are in lower case, that is most like `name`; `undefined` when none is known. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  closest(name.slice(0, comparedMax).toLowerCase(), known)
