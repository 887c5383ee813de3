import { expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, normalize } from 'node:path'
import { outcomeOf } from './support/outcome.ts'

const root = join(import.meta.dir, '..')

interface Source {
  /** From `src/` on. */
  path: string
  /** Files of `src/` that it loads, and names of packages. Types are nothing at run time and do not count. */
  imports: string[]
}

const sources = readSources()

function readSources(): Source[] {
  const transpiler = new Bun.Transpiler({ loader: 'ts' })
  const files = [...new Bun.Glob('**/*.ts').scanSync(join(root, 'src'))].filter(
    path => !path.endsWith('.d.ts'),
  )
  return files.sort().map(path => ({
    path,
    imports: transpiler
      .scanImports(readFileSync(join(root, 'src', path), 'utf8'))
      .map(({ path: name }) => (name.startsWith('.') ? normalize(join(dirname(path), name)) : name)),
  }))
}

/** Files of `src/` that a file names in its imports, types included. */
function allImports(path: string): string[] {
  const text = readFileSync(join(root, 'src', path), 'utf8')
  return [...text.matchAll(/\b(?:from|import\()\s*'(\.[^']+)'/g)]
    .map(([, name]) => normalize(join(dirname(path), name!)))
    .filter(name => !name.startsWith('..'))
}

/** `importer -> imported` for everything that a rule forbids. */
function breaches(
  of: (source: Source) => boolean,
  forbidden: (name: string, source: Source) => boolean,
): string[] {
  return sources
    .filter(of)
    .flatMap(source =>
      source.imports.filter(name => forbidden(name, source)).map(name => `${source.path} -> ${name}`),
    )
}

const isIn = (folder: string) => (source: Source) => source.path.startsWith(`${folder}/`)
const moduleOf = (path: string) => path.match(/^modules\/([^/]+)\//)?.[1]
/** A sign-in method is one file, its routes included. */
const isSignInMethod = ({ path }: Source) =>
  path.startsWith('modules/auth/') &&
  /^export const \w+SignIn = /m.test(readFileSync(join(root, 'src', path), 'utf8'))
const knowsHttp = (source: Source) =>
  /\/(batch-routes|routes|model|fields)\.ts$/.test(source.path) || isSignInMethod(source)

test('the sources are found, and what they import exists', () => {
  expect(sources.length).toBeGreaterThan(30)
  const known = new Set(sources.map(({ path }) => path))
  expect(
    breaches(
      () => true,
      name => name.endsWith('.ts') && !known.has(name),
    ),
  ).toEqual([])
})

/** Each room may import from itself and from those behind it. */
const rooms = ['main.ts', 'cli', 'server', 'modules', 'http', 'db', 'config', 'telemetry', 'lib']
const roomOf = (path: string) => path.split('/')[0]!

test(`imports go one way, types included: ${rooms.join(' -> ')}`, () => {
  expect([...new Set(sources.map(({ path }) => roomOf(path)))].sort()).toEqual([...rooms].sort())

  const backwards = sources.flatMap(({ path }) =>
    allImports(path)
      .filter(name => rooms.indexOf(roomOf(name)) < rooms.indexOf(roomOf(path)))
      .map(name => `${path} -> ${name}`),
  )
  expect(backwards).toEqual([])
})

test('no two files have one name, but for the kinds of files that each module has', () => {
  const kinds = ['table.ts', 'model.ts', 'routes.ts', 'service.ts']
  const names = sources.map(({ path }) => basename(path)).filter(name => !kinds.includes(name))
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([])
})

test('there is no circle of imports', () => {
  const importsOf = new Map(sources.map(({ path, imports }) => [path, imports]))
  const circles: string[] = []
  const done = new Set<string>()
  const visit = (path: string, trail: string[]) => {
    if (trail.includes(path))
      return void circles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '))
    if (done.has(path)) return
    for (const next of importsOf.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const { path } of sources) visit(path, [])

  expect(circles).toEqual([])
})

test('a module never imports another module’s routes', () => {
  expect(
    breaches(
      isIn('modules'),
      (name, { path }) => name.endsWith('/routes.ts') && moduleOf(name) !== moduleOf(path),
    ),
  ).toEqual([])
})

test('services and db know no Elysia, modules know no database driver', () => {
  const isElysia = (name: string) => name === 'elysia' || name.startsWith('elysia/')
  const isDriver = (name: string) =>
    /^(postgres|@electric-sql\/|bun:sqlite)/.test(name) || /^db\/(postgres|embedded)\//.test(name)

  expect(breaches(isIn('db'), isElysia)).toEqual([])
  expect(breaches(source => isIn('modules')(source) && !knowsHttp(source), isElysia)).toEqual([])
  expect(breaches(isIn('modules'), isDriver)).toEqual([])
  expect(breaches(isIn('http'), isDriver)).toEqual([])
  // Loaded when it is needed, and only the one that is.
  expect(readFileSync(join(root, 'src/db/drizzle.ts'), 'utf8')).not.toMatch(
    /^import (?!type).*\.\/(postgres|embedded)\//m,
  )
})

test('routes hold no query', () => {
  const routes = sources.filter(({ path }) => path.endsWith('/routes.ts'))
  expect(
    routes.flatMap(({ path, imports }) =>
      imports.filter(name => /drizzle|^db\//.test(name)).map(name => `${path} -> ${name}`),
    ),
  ).toEqual([])
})

test('the environment is read in one place', () => {
  const readers = sources
    .filter(({ path }) => /\b(process|Bun)\.env\b/.test(readFileSync(join(root, 'src', path), 'utf8')))
    .map(({ path }) => path)

  // The OpenTelemetry exporter reads its settings there itself; `.env` is copied for it.
  expect(readers).toEqual(['cli/read-config.ts', 'telemetry/tracing.ts'])
})

test('importing has no effect: nothing is printed, written, opened or kept going', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-imports-'))
  try {
    const files = sources.map(({ path }) => path).filter(path => path !== 'main.ts')
    const script = files.map(path => `await import(${JSON.stringify(join(root, 'src', path))})`).join('\n')
    const child = Bun.spawn([process.execPath, '-e', script], {
      cwd: folder,
      env: { PATH: '/usr/bin:/bin', HOME: folder, BUN_RUNTIME_TRANSPILER_CACHE_PATH: '0' },
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: 20_000,
    })
    // It ends by itself: no timer, no listener, no connection.
    expect(await outcomeOf(child)).toEqual({ exitCode: 0, stdout: '', stderr: '' })
    expect(readdirSync(folder)).toEqual([])
  } finally {
    rmSync(folder, { recursive: true })
  }
}, 30_000)
