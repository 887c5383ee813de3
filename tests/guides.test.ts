import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { createSilentNetwork } from './support/flaky-network.ts'
import type { User } from './support/harness.ts'
import { until } from './support/until.ts'

const root = join(import.meta.dir, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const packages = join(root, 'tests/clients/node_modules')

interface Block {
  path: string
  code: string
}

/** The code blocks of a document in one language, with the word after it: the path of a file. */
const blocks = (path: string, language: string): Block[] =>
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
        const command = line
          .replace('http://127.0.0.1:8000', service.url)
          .replace(/^npx (?:--yes )?(?:-p \S+ )*/, '')
        const [name, ...args] = command.split(' ')
        return run(join(packages, '.bin', name!), ...args)
      }),
    )
    return lines
  }
  /** Writes blocks of code into files, and checks their types. */
  async function writeChecked(files: Record<string, string>) {
    for (const [file, code] of Object.entries(files))
      writeFileSync(join(folder, file), code.replaceAll('http://127.0.0.1:8000', service.url))
    const flags =
      '--strict --exactOptionalPropertyTypes --noEmit --skipLibCheck --allowImportingTsExtensions --module preserve'
    const library = ['--target', 'esnext', '--lib', 'esnext,dom,dom.iterable']
    await run(join(packages, '.bin/tsc'), ...flags.split(' '), ...library, ...Object.keys(files))
  }

  test('the ten lines of README are typed and work as they stand', async () => {
    expect(await generate('README.md')).toHaveLength(1)
    const { code } = blocks('README.md', 'ts')[0]!

    expect(code.match(/^.+$/gm)).toHaveLength(10)
    await writeChecked({ 'client.ts': code })
    expect(await run('client.ts')).toBe('Buy milk\n')
  }, 60_000)

  test('the commands and the lines of docs/client.md work as they stand', async () => {
    const lines = await generate('docs/client.md')
    expect(lines).toHaveLength(4)
    for (const output of ['schema.d.ts', 'client/sdk.gen.ts', 'client.ts', 'schemas.ts']) {
      expect(existsSync(join(folder, output)), output).toBe(true)
    }
    const { code } = blocks('docs/client.md', 'ts')[0]!
    await writeChecked({ 'client.ts': code })
    expect(await run('client.ts')).toBe('[ "Buy bread", "Buy milk" ]\n')
  }, 60_000)

  test('the loop of docs/offline.md is typed, with fetch and with EventSource', async () => {
    const [{ path, code }, { code: receive }] = blocks('docs/offline.md', 'ts') as [Block, Block]
    const start = code.indexOf('async function receive')
    expect(start).toBeGreaterThan(0)
    await writeChecked({ [path]: code, 'event-source.ts': code.slice(0, start) + receive })
  }, 60_000)
})

describe.each(['postgres', 'embedded'] as const)('the loop of docs/offline.md (%s)', kind => {
  let place: Place
  let service: Running
  let user: User
  let folder: string
  beforeAll(async () => {
    place = await newPlace(kind)
    service = await startExecutable(place.env)
    await untilReady(service)
    user = await service.user()
    folder = mkdtempSync(join(tmpdir(), 'todo-api-guides-'))
    symlinkSync(join(root, 'tests/clients/node_modules'), join(folder, 'node_modules'))
  }, 60_000)
  afterAll(async () => {
    await service?.stop()
    await place?.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  test('keeps a copy through changes, deletions, a restart, and a cursor that has expired', async () => {
    const { path, code } = blocks('docs/offline.md', 'ts')[0]!
    expect(code.split('\n').length).toBeLessThan(60)
    writeFileSync(join(folder, path), code)
    const { follow } = await import(join(folder, path))
    const { default: createClient } = await import(join(packages, 'openapi-fetch'))
    const stop = new AbortController()
    const copy = createCopy()
    const headers = { authorization: `Bearer ${user.token}` }
    const fetchFrom = (request: Request) =>
      fetch(new Request(request.url.replace('http://service', service.url), request))
    const api = createClient({ baseUrl: 'http://service', headers, fetch: fetchFrom })
    const following = follow(api, copy, stop.signal, 50)
    const same = () =>
      until(async () => {
        const { body } = await service.get('/tasks?limit=200', user)
        return Bun.deepEquals(byId(body), byId([...copy.tasks.values()]))
      })

    const [first, second] = [await service.task(user), await service.task(user)]
    await same()
    await service.patch(`/tasks/${first.id}`, { ...user, json: { title: 'Buy oat milk' } })
    await service.delete(`/tasks/${second.id}`, user)
    await same()
    expect(copy.tasks.size).toBe(1)

    await service.stop()
    const { exitCode, stderr } = await runCommand(['reset-sync'], { env: place.env })
    if (exitCode !== 0) throw new Error(stderr)
    service = await startExecutable(place.env)
    await untilReady(service)
    await service.task(user)
    await same()
    expect([copy.tasks.size, copy.clears]).toEqual([2, 1])

    stop.abort()
    await following
  }, 60_000)

  test('goes on when its connections fall silent, which no one ends', async () => {
    const { path, code } = blocks('docs/offline.md', 'ts')[0]!
    const hurried = path.replace('.ts', '-hurried.ts')
    writeFileSync(join(folder, hurried), code.replace('30_000', '1000').replace('60_000', '2000'))
    const { follow } = await import(join(folder, hurried))
    const { default: createClient } = await import(join(packages, 'openapi-fetch'))
    const stop = new AbortController()
    const copy = createCopy()
    const network = createSilentNetwork(user.token, service.url)
    const api = createClient({ baseUrl: 'http://service', fetch: network.fetch })
    const following = follow(api, copy, stop.signal, 50)
    const { id: first } = await service.task(user)
    await until(() => copy.tasks.has(first) && network.hasStream())

    network.silence()
    const { id: second } = await service.task(user)
    await until(() => copy.tasks.has(second))
    stop.abort()
    await following
  }, 60_000)
})

/** A copy in memory. */
function createCopy() {
  const copy = {
    tasks: new Map<string, { id: string }>(),
    clears: 0,
    since: undefined as string | undefined,
    cursor: async () => copy.since,
    async apply({ tasks, deleted, cursor }: { tasks: { id: string }[]; deleted: string[]; cursor: string }) {
      for (const task of tasks) copy.tasks.set(task.id, task)
      for (const id of deleted) copy.tasks.delete(id)
      copy.since = cursor
    },
    async clear() {
      copy.tasks.clear()
      copy.since = undefined
      copy.clears++
    },
  }
  return copy
}

const byId = (tasks: { id: string }[]) => tasks.toSorted((a, b) => (a.id < b.id ? -1 : 1))

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
