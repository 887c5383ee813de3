import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { version } from '../../package.json'
import { print } from './terminal.ts'

/** `todo-api version`: prints the version, or the licences of todo-api and of the software in it. */
export async function versionCommand(_: string, options: { licenses?: boolean }): Promise<void> {
  await print(options.licenses ? await licenses() : `${version}\n`)
}

/** The text that `scripts/notices.ts` made at build time: in the executable, or in `build/`. */
async function licenses(): Promise<string> {
  const places = ['licenses.txt', '../../build/licenses.txt'].map(place => join(import.meta.dir, place))
  const path = places.find(place => existsSync(place))
  if (!path) throw new Error('the licences are collected by the build: bun run build')
  return Bun.file(path).text()
}
