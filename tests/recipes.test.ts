import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { projectFiles } from './support/project-files.ts'
import { change, readRecipes } from './support/recipes.ts'

const root = join(import.meta.dir, '..')
const recipes = readRecipes(readFileSync(join(root, '.github/CONTRIBUTING.md'), 'utf8'))

/** The most files that a recipe may ask for, beside its tests and what a command generates. */
const filesMax: Record<string, number> = {
  'A protected endpoint': 3,
  'A sign-in method': 3,
  'A model with its migration': 7,
  'A validation': 2,
}

test.each(recipes.map(recipe => [recipe.title, recipe] as const))('%s takes few files', (title, recipe) => {
  const files = [...recipe.changes.keys()].filter(path => !path.startsWith('tests/'))

  expect(files.length).toBeGreaterThan(0)
  expect(files.length).toBeLessThanOrEqual(filesMax[title] ?? 0)
})

test('there is a recipe for each of the usual changes', () => {
  expect(recipes.map(({ title }) => title).sort()).toEqual(Object.keys(filesMax).sort())
})

/** All recipes are carried out on one copy, so they also go together. */
describe('on a copy, as CONTRIBUTING.md says it', () => {
  let copy: string
  const written: string[] = []
  const tests: string[] = []

  beforeAll(async () => {
    copy = mkdtempSync(join(tmpdir(), 'todo-api-recipes-'))
    for (const path of projectFiles()) cpSync(join(root, path), join(copy, path))
    for (const path of ['node_modules', 'tests/clients/node_modules'])
      symlinkSync(join(root, path), join(copy, path))
    for (const recipe of recipes) {
      for (const [path, changes] of recipe.changes) {
        const file = join(copy, path)
        await Bun.write(
          file,
          change(path, existsSync(file) ? readFileSync(file, 'utf8') : undefined, changes),
        )
        written.push(path)
      }
      for (const command of recipe.commands) await follow(command)
    }
  }, 300_000)
  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  /** Runs what generates files, and notes the tests for the end: all of them start together. */
  async function follow(command: string) {
    const [, name, rest = ''] = command.match(/^bun run (\S+) ?(.*)$/) ?? []
    if (name === 'db:generate')
      expect(await run('scripts/generate-migration.ts', ...rest.split(' '))).toEqual(done)
    else if (name === 'test') tests.push(...rest.split(' '))
    else throw new Error(`no recipe may say: ${command}`)
  }

  const done = { exitCode: 0, output: '' }

  /** Runs a program of the copy; what it printed, if it failed. */
  async function run(program: string, ...args: string[]) {
    const child = Bun.spawn([process.execPath, program, ...args], {
      cwd: copy,
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const output = await Promise.all([child.stdout.text(), child.stderr.text()])
    const exitCode = await child.exited
    return { exitCode, output: exitCode === 0 ? '' : output.join('') }
  }

  test('the types are right', async () => {
    expect(await run('node_modules/.bin/tsc', '-p', '.')).toEqual(done)
  }, 300_000)

  test('the code passes lint and format', async () => {
    expect(await run('node_modules/.bin/biome', 'check', ...written)).toEqual(done)
  }, 300_000)

  test('the tests that the recipes bring pass, and those that look at every route, table and import', async () => {
    const always = ['docs', 'imports', 'surface', 'migration-rules', 'table-registry'].map(
      name => `tests/${name}.test.ts`,
    )
    expect(tests.length).toBe(recipes.length)
    // What clients rely on has changed on purpose.
    expect(await run('tests/support/api-shape.ts')).toEqual(done)
    expect(await run('test', '--timeout=30000', ...tests, ...always)).toEqual(done)
  }, 300_000)
})
