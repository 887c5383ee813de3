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

  expect(countOf(picture, 'class="room"')).toBe(3)
  expect(countOf(picture, 'marker-end="url(#arrow)"')).toBe(2)
})

test('the picture shows every arrow of a circle in red, and what hangs on it', async () => {
  const picture = await draw(roomsOf({ a: 'bc', b: 'ac', c: 'abd', d: '' }))

  expect(countOf(picture, 'marker-end="url(#circle)"')).toBe(6)
  expect(countOf(picture, 'marker-end="url(#arrow)"')).toBe(1)
})

test('rooms do not overlap, and arrows go down', async () => {
  const picture = await draw(readRooms(join(root, 'src')))
  const rooms = [...picture.matchAll(/class="room" x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"/g)].map(
    ([, ...numbers]) => numbers.map(Number) as [number, number, number, number],
  )
  const overlapping = rooms.flatMap(([x, y, width, height], i) =>
    rooms.slice(i + 1).filter(other => {
      const isBeside = other[0] >= x + width || x >= other[0] + other[2]
      return !isBeside && other[1] < y + height && y < other[1] + other[3]
    }),
  )
  const ends = [...picture.matchAll(/class="arrow" d="M[^,]+,([^C]+)C.*?,([\d.]+)" marker/g)].map(
    ([, from, to]) => ({ from: Number(from), to: Number(to) }),
  )

  expect(rooms.length).toBeGreaterThan(4)
  expect(overlapping).toEqual([])
  expect(ends.length).toBeGreaterThan(4)
  expect(ends.filter(({ from, to }) => to <= from)).toEqual([])
})

/** Rooms of one letter, each with the letters of those that it imports. */
const roomsOf = (imports: Record<string, string>): Rooms =>
  new Map(Object.entries(imports).map(([room, imported]) => [room, new Set(imported)]))

const countOf = (text: string, part: string) => text.split(part).length - 1
