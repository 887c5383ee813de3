import { expect, test } from 'bun:test'
import { dirname, join } from 'node:path'
import { AppError, type ErrorCode } from '../src/lib/errors.ts'
import { startExecutable } from './support/executable.ts'

const root = `${import.meta.dir}/..`
const read = (path: string) => Bun.file(`${root}/${path}`).text()

/** The code blocks below a heading. */
function blocksBelow(markdown: string, heading: string): string[] {
  const section = markdown.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0]
  if (section === undefined) throw new Error(`there is no heading ${heading}`)
  return [...section.matchAll(/```(?:sh)?\n(.*?)```/gs)].map(match => match[1]!)
}

test('the calls with curl work as they stand', async () => {
  const [script] = blocksBelow(await read('README.md'), 'Try it with curl')
  const service = await startExecutable()
  try {
    const run = Bun.spawn(['bash', '-euo', 'pipefail'], {
      stdin: new Blob([script!.replaceAll('http://127.0.0.1:8000', service.url)]),
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const output = await new Response(run.stdout).text()

    expect(await new Response(run.stderr).text()).toBe('')
    expect(await run.exited).toBe(0)
    const [account, task, list] = output
      .replaceAll(/([}\]])(?=[{[])/g, '$1\n')
      .split('\n')
      .map(line => JSON.parse(line))
    expect(account.email).toBe('ada@example.com')
    expect(task).toMatchObject({ title: 'Buy milk', due_at: '2030-01-31T17:00:00.000000Z', tags: ['home'] })
    expect(list).toEqual([task])
  } finally {
    await service.stop()
  }
})

test('every script that the README names exists', async () => {
  const { scripts } = await Bun.file(`${root}/package.json`).json()
  const named = [
    ...(await read('README.md')).matchAll(/\bbun(?:@[\d.]+)? (?:run )?(start|[a-z]+:?[a-z]*)\b/g),
  ]
  expect(named.length).toBeGreaterThan(5)
  for (const [, name] of named) expect(Object.keys(scripts)).toContain(name!)
})

test('every code of an error is documented with its status', async () => {
  const names = [...(await read('src/lib/errors.ts')).matchAll(/^ {2}(\w+): \[/gm)].map(match => match[1]!)
  const sent = names.map(name => {
    const { status, code } = new AppError(name as ErrorCode)
    return `${status} ${code}`
  })
  const rows = [...(await read('docs/api.md')).matchAll(/^\| (\d{3}) \| (.+) \|$/gm)]
  const documented = rows.flatMap(([, status, codes]) =>
    [...codes!.matchAll(/`(\w+)`/g)].map(([, code]) => `${status} ${code}`),
  )
  expect(names.length).toBeGreaterThan(30)
  expect(documented.sort()).toEqual([...new Set(sent)].sort())
})

test('every setting is documented, and every documented setting exists', async () => {
  const inSources = new Set(
    [
      ...(await read('src/config/config.ts')).matchAll(/(?:text|secret|integer|oneOf|flag)\('([A-Z_]+)'/g),
    ].map(match => match[1]!),
  )
  const documented = new Set(
    [...(await read('docs/settings.md')).matchAll(/^\| `([A-Z_]+)`/gm)].map(match => match[1]!),
  )
  expect(inSources.size).toBeGreaterThan(15)
  // OpenTelemetry's own settings are documented by OpenTelemetry.
  const ours = [...inSources].filter(name => !name.startsWith('OTEL_'))
  expect(ours.sort()).toEqual([...documented].sort())
})

test('every link to a file of the repository leads somewhere', async () => {
  const documents = ['*.md', 'docs/**/*.md', '.github/**/*.md', 'examples/*/*.md'].flatMap(pattern => [
    ...new Bun.Glob(pattern).scanSync({ cwd: root, dot: true }),
  ])
  expect(documents.length).toBeGreaterThan(20)
  for (const path of documents) {
    const folder = path.includes('/') ? path.slice(0, path.lastIndexOf('/') + 1) : ''
    for (const [, target] of (await read(path)).matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      const found = await Array.fromAsync(
        new Bun.Glob(target!.replace(/\/$/, '')).scan({ cwd: `${root}/${folder}`, onlyFiles: false }),
      )
      expect({ path, target, found: found.length }).toEqual({ path, target, found: 1 })
    }
  }
})

test('every link to a heading leads to one', async () => {
  const documents = ['*.md', 'docs/**/*.md', '.github/*.md', 'examples/*/*.md'].flatMap(pattern => [
    ...new Bun.Glob(pattern).scanSync({ cwd: root, dot: true }),
  ])
  const links: { path: string; file: string; heading: string }[] = []
  for (const path of documents) {
    for (const [, file, heading] of (await read(path)).matchAll(/\]\((?!https?:)([^)#]*)#([^)]+)\)/g)) {
      links.push({ path, file: file ? join(dirname(path), file) : path, heading: heading! })
    }
  }
  expect(links.length).toBeGreaterThan(10)
  const dead: typeof links = []
  for (const link of links) if (!idsOf(await read(link.file)).includes(link.heading)) dead.push(link)
  expect(dead).toEqual([])
})

/** The ids that GitHub makes of headings. */
const idsOf = (markdown: string) =>
  [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  )
