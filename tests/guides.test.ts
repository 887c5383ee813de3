import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Running, startExecutable, untilReady } from './support/executable.ts'

const root = join(import.meta.dir, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const packages = join(root, 'tests/clients/node_modules')

/** The code blocks of a document in one language, with the word after it: the path of a file. */
const blocks = (path: string, language: string) =>
  [...read(path).matchAll(/^```(\w+) ?(\S*)\n(.*?)^```$/gms)]
    .filter(match => match[1] === language)
    .map(([, , path, code]) => ({ path: path!, code: code! }))

describe('a client by README and docs/client.md', () => {
  let service: Running
  let folder: string
  beforeAll(async () => {
    service = await startExecutable({ ENVIRONMENT: 'test', BCRYPT_COST: '4' })
    await untilReady(service)
    await service.user('ada@example.com', 'correct horse')
    folder = mkdtempSync(join(tmpdir(), 'todo-api-guides-'))
    symlinkSync(packages, join(folder, 'node_modules'))
    writeFileSync(join(folder, 'openapi.json'), await (await fetch(`${service.url}/openapi.json`)).text())
  }, 60_000)
  afterAll(async () => {
    await service?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  /** Runs a program of the packages, or a file; what it prints. Throws if it fails. */
  async function run(...args: string[]) {
    const child = Bun.spawn([process.execPath, ...args], { cwd: folder, stdout: 'pipe', stderr: 'pipe' })
    const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text()])
    if ((await child.exited) !== 0) throw new Error(`${args.join(' ')}\n${output}${errors}`)
    return output
  }
  /** Runs the lines of `sh` blocks that begin with npx, with the packages that the tests have installed. */
  async function generate(path: string) {
    const lines = blocks(path, 'sh').flatMap(({ code }) => code.match(/^npx .+$/gm) ?? [])
    await Promise.all(
      lines.map(line => {
        const [, name, ...args] = line.replace('http://127.0.0.1:8000', service.url).split(' ')
        return run(join(packages, '.bin', name!.replace('@hey-api/', '')), ...args)
      }),
    )
    return lines
  }
  async function runSnippet(code: string) {
    writeFileSync(join(folder, 'client.ts'), code.replaceAll('http://127.0.0.1:8000', service.url))
    const flags =
      '--strict --noEmit --skipLibCheck --allowImportingTsExtensions --module preserve --target esnext'
    await run(
      join(packages, '.bin/tsc'),
      ...flags.split(' '),
      '--lib',
      'esnext,dom,dom.iterable',
      'client.ts',
    )
    return run('client.ts')
  }

  test('the ten lines of README are typed and work as they stand', async () => {
    expect(await generate('README.md')).toHaveLength(1)
    const { code } = blocks('README.md', 'ts')[0]!

    expect(code.match(/^.+$/gm)).toHaveLength(10)
    expect(await runSnippet(code)).toBe('Buy milk\n')
  }, 60_000)

  test('the commands and the lines of docs/client.md work as they stand', async () => {
    const lines = await generate('docs/client.md')
    expect(lines).toHaveLength(4)
    for (const output of ['schema.d.ts', 'client/sdk.gen.ts', 'client.ts', 'schemas.ts']) {
      expect(existsSync(join(folder, output)), output).toBe(true)
    }
    const { code } = blocks('docs/client.md', 'ts')[0]!
    expect(await runSnippet(code)).toBe('[ "Buy bread", "Buy milk" ]\n')
  }, 60_000)
})

test('docs/client.md names the versions that the tests use', () => {
  const { dependencies } = JSON.parse(read('tests/clients/package.json'))
  const requirements = read('tests/clients/python/requirements.txt')
  const generator = read('tests/clients/languages.ts').match(/generatorVersion = '(.+)'/)![1]!
  const rows = [...read('docs/client.md').matchAll(/^\| (\S+(?:, \S+)?) \| ([\d., ]+) \|$/gm)]
  const versions = Object.fromEntries(
    rows.flatMap(([, names, versions]) => {
      const numbers = versions!.split(', ')
      return names!.split(', ').map((name, i) => [name, numbers[i]])
    }),
  )

  expect(Object.keys(versions)).toHaveLength(7)
  for (const [name, version] of Object.entries(versions)) {
    const used = name === 'openapi-generator' ? generator : dependencies[name]
    if (used) expect({ name, version }).toEqual({ name, version: used })
    else expect(requirements).toContain(`${name}==${version}`)
  }
})

test('the code in docs/frontend.md is that of the example, which is driven in a browser', () => {
  const code = blocks('docs/frontend.md', 'ts')
  expect(code.length).toBeGreaterThan(4)
  for (const { path, code: part } of code) expect(read(path)).toContain(part.trimEnd())
})
