/**
 * Collects the licences of all software inside the executable. The build packs the text, and
 * `todo-api version --licenses` prints it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { version } from '../package.json'

const root = join(import.meta.dir, '..')
const betweenSections = `\n\n${'='.repeat(80)}\n\n`
const betweenTexts = `\n\n${'-'.repeat(80)}\n\n`

interface Component {
  title: string
  /** Where it comes from, and what its authors have built into it. */
  details: string[]
  terms: string[]
}

/** The whole text: the licence of todo-api, then every component; components with the same terms share a section. */
export async function collectNotices(): Promise<string> {
  const components = [...besidesPackages(), ...(await bundledPackages())]
  const byTerms = Map.groupBy(components, ({ terms }) => terms.join(betweenTexts))
  const sections = [...byTerms].map(([terms, sharing]) => {
    const heads = sharing.map(({ title, details }) => [title, ...details.map(line => `  ${line}`)].join('\n'))
    return `${heads.join('\n')}\n\n${terms}`
  })
  const index = components.map(({ title }) => `  ${title}`).join('\n')
  const own = `todo-api ${version}\n\n${read(join(root, 'LICENSE'))}\n\nIt contains this software:\n\n${index}`
  return `${[own, ...sections].join(betweenSections)}\n`
}

/** What the executable contains that is no npm package. */
function besidesPackages(): Component[] {
  return [
    {
      title: `Bun ${Bun.version}`,
      details: ['https://bun.com'],
      terms: ['bun', 'MIT', 'LGPL-2.0', 'LGPL-2.1', 'Apache-2.0'].map(text),
    },
    {
      title: 'PostgreSQL, inside @electric-sql/pglite',
      details: ['https://www.postgresql.org'],
      terms: [text('PostgreSQL')],
    },
    {
      title: 'Emscripten and musl, inside @electric-sql/pglite',
      details: ['https://emscripten.org', 'https://musl.libc.org'],
      terms: ['emscripten', 'MIT'].map(text),
    },
  ]
}

/** Every npm package that has a file in the bundle, or whose code another package's bundled file contains. */
async function bundledPackages(): Promise<Component[]> {
  const { metafile } = await Bun.build({
    entrypoints: [join(root, 'src/main.ts')],
    target: 'bun',
    splitting: true,
    metafile: true,
  })
  const found = new Map<string, Set<string>>()
  const filesOf = (folder: string) => found.getOrInsertComputed(folder, () => new Set())

  for (const input of Object.keys(metafile!.inputs)) {
    const file = resolve(input)
    const folder = folderOf(file)
    if (!folder) continue
    filesOf(folder).add(file)
    // A package that ships bundled files (tar) has dependencies in them that the bundler cannot see.
    const { dependencies = {} } = manifestOf(folder)
    for (const name of packagesInSourceMap(file)) {
      if (name in dependencies) filesOf(dependencyOf(folder, name))
    }
  }
  return [...found]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([folder, files]) => describe(folder, [...files]))
}

/** The folder of the package that a file belongs to; nothing for a file of ours. */
const folderOf = (file: string) => file.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0]

function dependencyOf(folder: string, name: string): string {
  const nested = join(folder, 'node_modules', name)
  return existsSync(nested) ? nested : join(root, 'node_modules', name)
}

/** The packages that a file was made from, if it has a source map that tells. */
function packagesInSourceMap(file: string): string[] {
  const map = `${file}.map`
  if (!existsSync(map)) return []
  const { sources } = JSON.parse(read(map)) as { sources: string[] }
  const names = sources.flatMap(source => folderOf(source)?.replace(/^.*node_modules\//, '') ?? [])
  return [...new Set(names)].sort()
}

function describe(folder: string, files: string[]): Component {
  const { name, version, license, homepage, repository, dependencies = {} } = manifestOf(folder)
  const origin = homepage ?? (typeof repository === 'object' ? repository.url : repository) ?? ''
  const others = files
    .flatMap(packagesInSourceMap)
    .filter(other => other !== name && !(other in dependencies))
  const builtIn = [...new Set(others)].sort().join(', ')
  return {
    title: `${name} ${version}`,
    details: [
      `${license}, ${origin}`,
      ...(builtIn ? [`contains code of these npm packages, under their own licences: ${builtIn}`] : []),
    ],
    terms: termsOf(folder, files, license),
  }
}

/** Licences and notices that the package contains, or else the standard text of its licence. */
function termsOf(folder: string, files: string[], license = ''): string[] {
  const inFolder = readdirSync(folder)
    .filter(name => /^(licen[cs]e|copying|notice|third-?party)/i.test(name))
    .map(name => join(folder, name))
  const ofFiles = files.map(file => `${file}.LICENSE.txt`).filter(existsSync)
  if (inFolder.length > 0) return [...inFolder.sort(), ...ofFiles].map(read)
  if (existsSync(textPath(license))) return [text(license)]
  throw new Error(`${folder} is under ${license} without its text: put that into ${textPath(license)}`)
}

const textPath = (license: string) => join(import.meta.dir, 'licenses', `${license}.txt`)
const text = (license: string) => read(textPath(license))
const read = (path: string) => readFileSync(path, 'utf8').replaceAll('\r\n', '\n').trim()

interface Manifest {
  name: string
  version: string
  license?: string
  homepage?: string
  repository?: string | { url: string }
  dependencies?: Record<string, string>
}

const manifestOf = (folder: string): Manifest => JSON.parse(read(join(folder, 'package.json')))

if (import.meta.main) process.stdout.write(await collectNotices())
