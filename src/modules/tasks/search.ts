/** Scripts without spaces between words, and Hangul, whose endings are part of the word: each character is a word. */
const scriptsWithoutSpaces =
  /([\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{Extended_Pictographic}\p{Regional_Indicator}])/gu

/** Accents and vowel signs that users leave out when they search: Latin, Greek and Cyrillic, Hebrew, Arabic. */
const marks = /[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]/g

const betweenWords = /[^\p{L}\p{N}\p{M}\p{Extended_Pictographic}\p{Regional_Indicator}]+/gu

/** Normalization sorts the marks on a letter, which takes long for many of them; compatibility forms can be 18 times as long. */
const maxCombiningMarks = 8
const surplusMarks = new RegExp(`(\\p{M}{${maxCombiningMarks}})\\p{M}+`, 'gu')
const foldedMax = 4000

/** Case is folded through upper case, which turns `ß` into `ss` and `ﬁ` into `fi`; lower case before it turns `ẞ` into `ß`. */
const fold = (text: string) =>
  text
    .replace(surplusMarks, '$1')
    .normalize('NFKC')
    .slice(0, foldedMax)
    .toLowerCase()
    .toUpperCase()
    .toLowerCase()
    .normalize('NFD')
    .replace(marks, '')
    .normalize('NFC')
    .replaceAll('ς', 'σ')

const ascii = /^[\0-\x7f]*$/

/**
 * The words of a text for the search: case and accents folded, a space before each word and none after the last. Computed
 * here and stored, so that every database finds the same, whatever its locale.
 */
export function tokenize(text: string): string {
  // Most texts are ASCII, and need much less work.
  if (ascii.test(text)) return joinTokens(text.toLowerCase().replace(/[^a-z0-9]+/g, ' '))
  return joinTokens(
    fold(text).replace(betweenWords, ' ').replace(scriptsWithoutSpaces, ' $1 ').replace(/ +/g, ' '),
  )
}

function joinTokens(words: string): string {
  const trimmed = words.trim()
  return trimmed === '' ? '' : ` ${trimmed}`
}

/** Separates the words of the title from those of the description; never part of a word. */
export const wordsSeparator = '|'

const searchWordsMax = 20

/** Why a text is no search. Each word may cost a look at every position in the words of every task. */
export function searchProblem(search: string): { type: string; msg: string } | undefined {
  const words = searchParts(search).join('').split(' ').slice(1)
  if (words.length <= searchWordsMax) return undefined
  const msg = `String should have at most ${searchWordsMax} words, or characters of a script without spaces`
  return { type: 'too_many_words', msg }
}

/**
 * What a search asks for: the beginnings of words, each with a space before it, and phrases of a script without spaces. A
 * task has to have all of them. None when there is no word in the text, such as in `!!!`.
 */
export function searchParts(search: string): string[] {
  const parts = [...new Set(fold(search).split(betweenWords).map(tokenize))].filter(part => part !== '')
  // What holds a longer one holds its beginning.
  return parts.filter(part => !parts.some(other => other !== part && other.includes(part)))
}
