import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What is only for those who change the program. */
const forDevelopers = ['architecture.md']

/** Reads the guides of docs/, by file name. Imported as a macro: Bun puts them into the program when it builds. */
export function readGuides(): Record<string, string> {
  const folder = join(import.meta.dir, '../../docs')
  const names = readdirSync(folder).filter(name => name.endsWith('.md') && !forDevelopers.includes(name))
  return Object.fromEntries(names.sort().map(name => [name, readFileSync(join(folder, name), 'utf8')]))
}
