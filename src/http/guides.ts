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
  const html = Bun.markdown.html(text, { headings: { ids: true } })
  return { title: titleOf(text), html: withoutDeadLinks(html) }
}

const titleOf = (text: string) => text.slice('# '.length, text.indexOf('\n'))

/** Links to files that are not in the program, and pictures, become their text. */
function withoutDeadLinks(html: string): string {
  return html
    .replace(/<img [^>]*alt="([^"]*)"[^>]*>/g, '$1')
    .replace(/<a href="([^"#]*)([^"]*)">(.*?)<\/a>/gs, (link, file: string, _, text: string) =>
      file === '' || /^https?:/.test(file) || Object.hasOwn(guides, file) ? link : text,
    )
}
