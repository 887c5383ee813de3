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

/**
 * Draws the rooms from top to bottom. An arrow that others imply (a → c beside a → b → c) is left out, so that the
 * picture shows what may import what.
 */
export async function draw(rooms: Rooms): Promise<string> {
  const graphviz = await Graphviz.load()
  const svg = graphviz.dot(graphviz.tred(toDot(rooms)).out)
  return svg.slice(svg.indexOf('<svg')).replace('>', `>\n<style>${style}</style>`)
}

function toDot(rooms: Rooms): string {
  const arrows = [...rooms].flatMap(([from, imported]) => [...imported].map(to => `"${from}" -> "${to}"`))
  return `digraph "The rooms of src/ and their imports" {
    graph [nodesep=0.4 ranksep=0.5 pad=0.2]
    node [shape=box style="rounded,filled" fontname=Helvetica fontsize=15 height=0.5 margin="0.25,0.1"]
    edge [arrowsize=0.7]
    ${[...rooms.keys()].map(room => `"${room}"`).join('\n')}
    ${arrows.join('\n')}
  }`
}

/** Instead of the colours that Graphviz writes into the elements. */
const style = `
.graph > polygon { fill: #fff }
.node path { fill: #eef4fb; stroke: #5b8db8 }
.edge path { stroke: #44576a }
.edge polygon { fill: #44576a; stroke: #44576a }
text { fill: #1b2733; font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
@media (prefers-color-scheme: dark) {
.graph > polygon { fill: #0d1117 }
.node path { fill: #17263a; stroke: #4f83b3 }
.edge path { stroke: #9fb2c5 }
.edge polygon { fill: #9fb2c5; stroke: #9fb2c5 }
text { fill: #e3ebf3 }
}
`

if (import.meta.main) {
  await Bun.write(join(root, 'docs/architecture.svg'), await draw(readRooms(join(root, 'src'))))
}
