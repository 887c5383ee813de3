import { expect, test } from 'bun:test'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { envExample } from '../scripts/env-example.ts'
import { parseConfig } from '../src/config/config.ts'

const root = join(import.meta.dir, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')

test('.env.example is current; otherwise: bun run generate', async () => {
  expect(read('.env.example')).toBe(await envExample())
})

// Some settings count only beside others.
test.each([
  {},
  { BACKUP_EVERY: '6h' },
  { DATABASE_URL: 'postgres://todo@db.example.com/todo', METRICS_PORT: '9100' },
])('.env.example shows the defaults: with every line in force nothing changes (given %j)', given => {
  const shown = parseEnv(read('.env.example').replace(/^#(?=[A-Z_]+=)/gm, ''))

  expect(Object.keys(shown).length).toBeGreaterThan(20)
  expect(parseConfig({ ...shown, ...given })).toEqual(parseConfig(given))
})

test('.editorconfig says what biome.json says', () => {
  const { formatter } = JSON.parse(read('biome.json'))
  const settings = Object.fromEntries(
    [...read('.editorconfig').matchAll(/^(\w+) = (.+)$/gm)].map(([, name, value]) => [name, value]),
  )
  expect(settings).toMatchObject({
    indent_style: formatter.indentStyle,
    indent_size: String(formatter.indentWidth ?? 2),
    end_of_line: formatter.lineEnding ?? 'lf',
    max_line_length: String(formatter.lineWidth),
  })
})

test('the workflow runs .ci/run and nothing else', () => {
  const workflow = Bun.YAML.parse(read('.github/workflows/ci.yml')) as {
    jobs: Record<string, { steps: { run?: string }[] }>
  }
  const commands = Object.values(workflow.jobs).flatMap(({ steps }) => steps.flatMap(({ run }) => run ?? []))

  expect(commands).toEqual(['.ci/run'])
  expect(statSync(join(root, '.ci/run')).mode & 0o111).toBe(0o111)
})

test('the pictures of README are small', () => {
  const pictures = [...read('README.md').matchAll(/!\[[^\]]+\]\((docs\/images\/[^)]+)\)/g)].map(
    ([, path]) => path!,
  )
  const bytes = pictures.reduce((sum, path) => sum + statSync(join(root, path)).size, 0)

  expect(pictures.length).toBe(2)
  expect(bytes).toBeLessThan(150_000)
})
