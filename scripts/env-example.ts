/** `bun scripts/env-example.ts`: writes .env.example, every setting of docs/settings.md with its default. */
import { join } from 'node:path'

const root = join(import.meta.dir, '..')
const head =
  '# Copy this file to .env and remove the # before what you want to change. More: docs/settings.md\n'
const columns = 100

/** The content of .env.example. */
export async function envExample(): Promise<string> {
  const settings = await Bun.file(join(root, 'docs/settings.md')).text()
  const rows = settings.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) ?\|$/gm)
  return head + Array.from(rows, ([, name, value, text]) => entry(name!, value!, text!)).join('')
}

function entry(name: string, value: string, text: string): string {
  // A default in words (`the embedded database`) is no value: the line stays empty, which counts as unset.
  const literal = value.match(/^(\d+)$|^`([^`]+)`$/)
  const words = literal ? text : `Default: ${value}. ${text}`
  const comment = wrap(plain(words))
    .map(line => `# ${line}\n`)
    .join('')
  return `\n${comment}#${name}=${literal?.[1] ?? literal?.[2] ?? ''}\n`
}

/** Markdown without its marks; a link becomes the file that it leads to. */
const plain = (markdown: string) =>
  markdown.replace(/\[[^\]]+\]\(([^)#]+)[^)]*\)/g, 'docs/$1').replaceAll('`', '')

function wrap(text: string): string[] {
  const lines: string[] = []
  for (const word of text.split(' ').filter(Boolean)) {
    const line = lines.at(-1)
    if (line !== undefined && line.length + word.length < columns) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines
}

if (import.meta.main) await Bun.write(join(root, '.env.example'), await envExample())
