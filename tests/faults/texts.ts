/** Texts that say whose they are and can be checked by themselves: `[u07 k3f 1200] …`. */

const pattern = /^\[(u\d+) (\w+)(?: (\d+))?\] /

/** A text of `length` characters, different for every token, with what JSON has to escape. */
export function textOf(mark: string, token: string, length: number): string {
  const head = `[${mark} ${token} ${length}] `
  const check = Bun.hash.crc32(head).toString(36)
  const part = `${token} "${check}" \\é\n${mark} `
  return `${head}${part.repeat(Math.ceil(length / part.length))}`.slice(0, length - 1).concat('.')
}

/** Whether a text is a user's own, from its first to its last character. */
export function isWholeText(text: unknown, mark: string): text is string {
  if (typeof text !== 'string') return false
  const [, owner, token, length] = text.match(pattern) ?? []
  return owner === mark && text === textOf(mark, token!, Number(length))
}

/** The same for a title, which has no line breaks. */
export function titleOf(mark: string, token: string): string {
  return `[${mark} ${token}] ${Bun.hash.crc32(`${mark} ${token}`).toString(36)} "title" of ${token}`
}

export function isWholeTitle(title: unknown, mark: string): title is string {
  if (typeof title !== 'string') return false
  const [, owner, token] = title.match(pattern) ?? []
  return owner === mark && title === titleOf(mark, token!)
}
