/**
 * `bun scripts/picture.ts`: draws docs/architecture.svg, the rooms of src/ (its folders, and the files beside them) and
 * which room imports which. Imports of types are nothing at run time and are left out.
 */
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { Graphviz } from '@hpcc-js/wasm-graphviz'

const root = join(import.meta.dir, '..')

/** Every room, and the rooms that it imports; both in alphabetical order, so that the picture is always the same. */
export type Rooms = Map<string, Set<string>>

/** Reads the imports of a folder of sources. */
export function readRooms(folder: string): Rooms {
  const transpiler = new Bun.Transpiler({ loader: 'ts' })
  const files = [...new Bun.Glob('**/*.ts').scanSync(folder)].filter(path => !path.endsWith('.d.ts'))
  const rooms: Rooms = new Map([...new Set(files.map(roomOf))].sort().map(room => [room, new Set()]))
  for (const file of files) {
    for (const { path } of transpiler.scanImports(readFileSync(join(folder, file), 'utf8'))) {
      const imported = roomOf(normalize(join(dirname(file), path)))
      if (path.startsWith('.') && imported !== roomOf(file) && rooms.has(imported)) {
        rooms.get(roomOf(file))!.add(imported)
      }
    }
  }
  return new Map([...rooms].map(([room, imported]) => [room, new Set([...imported].sort())]))
}

const roomOf = (path: string) => path.split('/')[0]!

interface Arrow {
  from: string
  to: string
  isInCircle: boolean
}

/**
 * Draws the rooms from top to bottom. An arrow that others imply (a → c beside a → b → c) is left out, so that the
 * picture shows what may import what; an arrow in a circle never is, and it is red.
 */
export async function draw(rooms: Rooms): Promise<string> {
  const arrows: Arrow[] = [...rooms]
    .flatMap(([from, imported]) =>
      [...imported].map(to => ({ from, to, isInCircle: reaches(rooms, to, from) })),
    )
    .filter(({ from, to, isInCircle }) => isInCircle || !isImplied(rooms, from, to))
  const graphviz = await Graphviz.load()
  return toSvg(graphviz.layout(toDot([...rooms.keys()], arrows), 'plain', 'dot'), arrows)
}

const isImplied = (rooms: Rooms, from: string, to: string) =>
  [...rooms.get(from)!].some(next => next !== to && reaches(rooms, next, to, new Set([from])))

function reaches(rooms: Rooms, from: string, to: string, seen = new Set<string>()): boolean {
  if (from === to) return true
  if (seen.has(from)) return false
  seen.add(from)
  return [...rooms.get(from)!].some(next => reaches(rooms, next, to, seen))
}

const fontSize = 15

/** Arrows have no heads here: the layout below would leave out where a head ends, so the drawing adds them. */
function toDot(rooms: string[], arrows: Arrow[]): string {
  return `digraph {
    graph [nodesep=0.4 ranksep=0.5]
    node [shape=box fontname=Helvetica fontsize=${fontSize} height=0.5 margin="0.25,0.1"]
    edge [arrowhead=none]
    ${rooms.map(room => `"${room}"`).join('\n')}
    ${arrows.map(({ from, to }) => `"${from}" -> "${to}"`).join('\n')}
  }`
}

const margin = 16
const pointsPerInch = 72

/** Draws what Graphviz laid out; graphviz.org/docs/outputs/plain describes the lines. */
function toSvg(layout: string, arrows: Arrow[]): string {
  const lines = layout.split('\n').map(line => line.split(' ').map(word => word.replaceAll('"', '')))
  const linesOf = (kind: string) => lines.filter(([word]) => word === kind).map(([, ...words]) => words)
  const [width, height] = linesOf('graph')[0]!
    .slice(1)
    .map(inches => Number(inches) * pointsPerInch)
  const x = (inches: number) => round(margin + inches * pointsPerInch)
  const y = (inches: number) => round(margin + height! - inches * pointsPerInch)

  const curves = linesOf('edge').map(([from, to, , ...rest]) => {
    const numbers = rest.map(Number).filter(number => !Number.isNaN(number))
    const points = Array.from({ length: numbers.length / 2 }, (_, i) => {
      return `${x(numbers[2 * i]!)},${y(numbers[2 * i + 1]!)}`
    })
    const arrow = arrows.find(arrow => arrow.from === from && arrow.to === to)!
    const kind = arrow.isInCircle ? 'circle' : 'arrow'
    return `<path class="${kind}" d="M${points[0]}C${points.slice(1).join(' ')}" marker-end="url(#${kind})"/>`
  })
  const boxes = linesOf('node').map(([name, ...rest]) => {
    const [midX, midY, w, h] = rest.map(Number) as [number, number, number, number]
    const size = `width="${round(w * pointsPerInch)}" height="${round(h * pointsPerInch)}"`
    return `<rect class="room" x="${x(midX - w / 2)}" y="${y(midY + h / 2)}" ${size} rx="8"/>
<text x="${x(midX)}" y="${y(midY)}">${name}</text>`
  })
  const size = [Math.ceil(width! + 2 * margin), Math.ceil(height! + 2 * margin)]
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${size[0]}" height="${size[1]}" viewBox="0 0 ${size.join(' ')}">
<title>The rooms of src/ and their imports</title>
<style>${style}</style>
<defs>
${head('arrow')}
${head('circle')}
</defs>
<rect class="ground" width="100%" height="100%" rx="12"/>
${[...curves, ...boxes].join('\n')}
</svg>
`
}

const head = (kind: string) =>
  `<marker id="${kind}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="${kind}" d="M0 .5 8 4 0 7.5z"/></marker>`

const round = (value: number) => Math.round(value * 10) / 10

const style = `
.ground { fill: #fff }
.room { fill: #eef4fb; stroke: #5b8db8 }
text { font: ${fontSize}px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1b2733; text-anchor: middle; dominant-baseline: central }
path { fill: none; stroke-width: 1.4 }
.arrow { stroke: #44576a }
.circle { stroke: #d1242f }
marker path { stroke: none }
marker .arrow { fill: #44576a }
marker .circle { fill: #d1242f }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 }
.room { fill: #17263a; stroke: #4f83b3 }
text { fill: #e3ebf3 }
.arrow { stroke: #9fb2c5 }
marker .arrow { fill: #9fb2c5 }
}
`

if (import.meta.main) {
  await Bun.write(join(root, 'docs/architecture.svg'), await draw(readRooms(join(root, 'src'))))
}
