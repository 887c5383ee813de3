import { AppError } from '../lib/errors.ts'
import { readGuides } from './guides.macro.ts' with { type: 'macro' }

const guides: Record<string, string> = readGuides()

/** The list of guides, as HTML. */
export function guideList(): string {
  const items = Object.entries(guides).map(
    ([name, text]) => `<li><a href="/docs/guides/${name}">${Bun.escapeHTML(titleOf(text))}</a></li>`,
  )
  return `<h1>Guides</h1>\n<ul>\n${items.join('\n')}\n</ul>`
}

/** A guide of docs/, as HTML. Throws `not_found`. */
export function guide(name: string): { title: string; html: string } {
  const text = Object.hasOwn(guides, name) ? guides[name]! : undefined
  if (text === undefined) throw new AppError('not_found')
  return { title: titleOf(text), html: withoutDeadLinks(withIds(Bun.markdown.html(text))) }
}

const titleOf = (text: string) => text.slice('# '.length, text.indexOf('\n'))

/** Headings get the ids that links to them have on GitHub; Bun's own leave out the underscore. */
function withIds(html: string): string {
  return html.replace(/<(h\d)>(.*?)<\/\1>/g, (_, tag: string, content: string) => {
    const words = content.replace(/<[^>]+>|&\w+;/g, '').toLowerCase()
    const id = words.replace(/[^\p{L}\p{N}_ -]/gu, '').replaceAll(' ', '-')
    return `<${tag} id="${id}">${content}</${tag}>`
  })
}

/** Links to files that are not in the program, and pictures, become their text. */
function withoutDeadLinks(html: string): string {
  return html
    .replace(/<img [^>]*alt="([^"]*)"[^>]*>/g, '$1')
    .replace(/<a href="([^"#]*)([^"]*)">(.*?)<\/a>/gs, (link, file: string, _, text: string) =>
      file === '' || /^https?:/.test(file) || Object.hasOwn(guides, file) ? link : text,
    )
}
