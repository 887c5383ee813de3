import { closest } from 'fastest-levenshtein'

/** The name of `known`, which are in lower case, that is most like `name`; `undefined` when none is known. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  closest(name.toLowerCase(), known)
