import { expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { runCommand } from './support/command.ts'
import { executablePath } from './support/executable.ts'

const root = join(import.meta.dir, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8').replaceAll('\r\n', '\n').trim()

test('the executable prints the licence of every package that its own source map names', async () => {
  const { exitCode, stdout } = await runCommand(['version', '--licenses'])
  expect(exitCode).toBe(0)

  const inside = await packagesInside(await executablePath())
  expect(inside.length).toBeGreaterThan(25)
  // A name here: the executable contains a package that scripts/notices.ts does not find.
  expect(inside.filter(name => !names(stdout, name))).toEqual([])
}, 60_000)

test('the printed licences hold the texts that must travel with the executable', async () => {
  const { stdout } = await runCommand(['version', '--licenses'])
  const texts = [
    'LICENSE',
    ...readdirSync(join(root, 'scripts/licenses')).map(name => `scripts/licenses/${name}`),
    'node_modules/@electric-sql/pglite/LICENSE',
    'node_modules/swagger-ui-dist/LICENSE',
    'node_modules/swagger-ui-dist/NOTICE',
    'node_modules/swagger-ui-dist/swagger-ui-bundle.js.LICENSE.txt',
  ]
  expect(texts.filter(path => !stdout.includes(read(path)))).toEqual([])
  // No import names it: the authors of tar bundled it.
  expect(names(stdout, 'minipass')).toBe(true)
  // Its own head: the licence and where it comes from.
  expect(/^tar [\d.]+\n {2}BlueOak-1\.0\.0, https:\/\/github\.com\/isaacs\//m.test(stdout)).toBe(true)
})

test('the notices of Bun are those of the version that makes the executable', () => {
  const [, version] = read('Dockerfile').match(/oven\/bun:([\d.]+)/)!
  // Otherwise: compare scripts/licenses/bun.txt with LICENSE.md of that version of Bun, and write its number there.
  expect(read('scripts/licenses/bun.txt')).toStartWith(`The notices of Bun ${version}.`)
})

/** Whether the package has a line in the list at the top. */
const names = (notices: string, name: string) => notices.includes(`\n  ${name} `)

/** The npm packages whose files the source map inside the executable names. */
async function packagesInside(path: string): Promise<string[]> {
  const bytes = await Bun.file(path).arrayBuffer()
  const found = Buffer.from(bytes)
    .toString('latin1')
    .matchAll(/node_modules\/((?:@[a-z0-9._-]+\/)?[a-z0-9._-]+)\/[\w./-]+\.[cm]?[jt]s/g)
  // Bun's own part names files of packages, too; those are not installed here.
  return [...new Set(Array.from(found, ([, name]) => name!))]
    .filter(name => existsSync(join(root, 'node_modules', name, 'package.json')))
    .sort()
}
