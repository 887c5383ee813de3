import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Glob } from 'bun'

const root = join(import.meta.dir, '../..')

/** What .gitignore names: packages, builds and generated clients, which come and go while other tests run. */
const ignored = readFileSync(join(root, '.gitignore'), 'utf8')
  .split('\n')
  .filter(line => line !== '')
  .map(line => line.replace(/\/$/, ''))
  .map(pattern => new Glob(pattern.includes('/') ? pattern : `**/${pattern}`))

/** The files of the project below `folder`, as paths from its root. Folders that Git ignores are not read. */
export function projectFiles(folder = ''): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name)
    if (entry.name === '.git' || ignored.some(glob => glob.match(path))) return []
    return entry.isDirectory() ? projectFiles(path) : [path]
  })
}
