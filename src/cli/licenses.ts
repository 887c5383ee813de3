import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** The text that `scripts/notices.ts` made at build time: in the executable, or in `build/`. */
export async function licenses(): Promise<string> {
  const places = ['licenses.txt', '../../build/licenses.txt'].map(place => join(import.meta.dir, place))
  const path = places.find(place => existsSync(place))
  if (!path) throw new Error('the licences are collected by the build: bun run build')
  return Bun.file(path).text()
}
