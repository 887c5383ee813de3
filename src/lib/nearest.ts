import { closest, distance } from 'fastest-levenshtein'

/** Of a longer name only the beginning is compared: the time grows with the length. */
const comparedMax = 100

const compared = (name: string) => name.slice(0, comparedMax).toLowerCase()

/** The name of `known`, which are in lower case, that may be meant by `name`: fewer than half of the letters differ. */
export function similarName(name: string, known: readonly string[]): string | undefined {
  const written = compared(name)
  const found = closest(written, known)
  return found !== undefined && distance(written, found) < written.length / 2 ? found : undefined
}

/** What may be written in place of an unknown name: the similar one, or else all. */
export function hintFor(name: string, known: readonly string[]): string {
  if (known.length === 0) return 'none is known here'
  const similar = similarName(name, known)
  return similar === undefined ? `known are ${known.join(', ')}` : `the nearest known one is '${similar}'`
}
