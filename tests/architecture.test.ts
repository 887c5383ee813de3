import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { draw, type Rooms, readRooms } from '../scripts/picture.ts'

const root = join(import.meta.dir, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')

test('the picture of the imports is current; otherwise: bun run generate', async () => {
  const drawn = await draw(readRooms(join(root, 'src')))
  // Not toBe: on failure it would print both pictures.
  expect(drawn === read('docs/architecture.svg')).toBe(true)
})

test('every folder of src/ has a row among the layers, and every row is there', () => {
  const layers = read('docs/architecture.md').split('## Layers')[1]!.split('In a module')[0]!
  const rows = [...layers.matchAll(/^\| `([\w.]+)\/?` \|/gm)].map(([, name]) => name!)
  const entries = readdirSync(join(root, 'src'), { withFileTypes: true })
  const folders = entries.filter(entry => entry.isDirectory()).map(({ name }) => name)

  expect(folders.filter(name => !rows.includes(name))).toEqual([])
  expect(rows.filter(name => !entries.some(entry => entry.name === name))).toEqual([])
})

test('the picture leaves out what other arrows imply', async () => {
  const picture = await draw(roomsOf({ a: 'bc', b: 'c', c: '' }))

  expect(countOf(picture, 'class="node"')).toBe(3)
  expect(countOf(picture, 'class="edge"')).toBe(2)
})

/** Rooms of one letter, each with the letters of those that it imports. */
const roomsOf = (imports: Record<string, string>): Rooms =>
  new Map(Object.entries(imports).map(([room, imported]) => [room, new Set(imported)]))

const countOf = (text: string, part: string) => text.split(part).length - 1
