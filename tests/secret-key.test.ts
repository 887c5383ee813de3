import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lockFile } from '../src/config/data-dir.ts'
import { loadSecretKey } from '../src/config/secret-key.ts'
import { outcomeOf } from './support/outcome.ts'

const top = mkdtempSync(join(tmpdir(), 'todo-api-secret-'))
afterAll(() => rmSync(top, { recursive: true }))
const newFolder = () => mkdtempSync(join(top, 'data-'))

/** Runs a script that can load secrets in a process of its own, under `recorded-fs.ts`. */
async function run(script: string) {
  const child = Bun.spawn(
    [
      process.execPath,
      ...['--preload', join(import.meta.dir, 'support/recorded-fs.ts'), '-e'],
      `import { loadSecretKey } from ${JSON.stringify(join(import.meta.dir, '../src/config/secret-key.ts'))}; ${script}`,
    ],
    { env: { PATH: process.env.PATH }, stdout: 'pipe', stderr: 'pipe', timeout: 30_000 },
  )
  const { exitCode, stdout, stderr } = await outcomeOf(child)
  const lines = (text: string) => text.split('\n').filter(line => line !== '')
  return { exitCode, stderr, secrets: lines(stdout), steps: lines(stderr) }
}

test('the secret of an installation is 256 random bits, kept for its owner alone', () => {
  const secrets = [newFolder(), newFolder()].map(folder => {
    const secret = loadSecretKey(folder)
    expect(loadSecretKey(folder)).toBe(secret)
    expect(readdirSync(folder)).toEqual(['secret_key'])
    expect(readFileSync(join(folder, 'secret_key'), 'utf8')).toBe(secret)
    expect(statSync(join(folder, 'secret_key')).mode & 0o777).toBe(0o600)
    return secret
  })

  for (const secret of secrets) expect(secret).toMatch(/^[0-9a-f]{64}$/)
  const bytes = secrets.map(secret => Buffer.from(secret, 'hex'))
  // Of 32 random bytes a few are equal by chance, never nearly all of them.
  expect(bytes[0]!.filter((byte, i) => byte === bytes[1]![i]).length).toBeLessThan(8)
  expect(new Set(bytes[0]).size).toBeGreaterThan(16)
})

test('a folder that is not there is made for it, closed to others', () => {
  const folder = join(newFolder(), 'a', 'b')

  expect(loadSecretKey(folder)).toHaveLength(64)
  expect(statSync(folder).mode & 0o777).toBe(0o700)
})

test('a secret of an operator in the file has at least 32 letters', () => {
  const folder = newFolder()
  const write = (secret: string) => writeFileSync(join(folder, 'secret_key'), `${secret}\n`)

  write('x'.repeat(32))
  expect(loadSecretKey(folder)).toBe('x'.repeat(32))
  write('x'.repeat(31))
  expect(() => loadSecretKey(folder)).toThrow('is damaged')
})

test.each(['', 'geheim', '\n'.repeat(64)])(
  'a damaged file (%p) is no secret, and is not repeated',
  content => {
    const folder = newFolder()
    const file = join(folder, 'secret_key')
    writeFileSync(file, content)
    expect(() => loadSecretKey(folder)).toThrow(
      new Error(`${file} is damaged: it should hold 64 hexadecimal digits`),
    )
  },
)

test('the secret is on disk before it has its name, and the name before it is used', async () => {
  const folder = newFolder()

  const { exitCode, secrets, steps } = await run(`console.log(loadSecretKey(${JSON.stringify(folder)}))`)

  expect(exitCode).toBe(0)
  expect(secrets).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)])
  const draft = steps[0]!.replace('sync ', '')
  expect(draft).toStartWith(`${folder}/secret_key.`)
  expect(steps).toEqual([`sync ${draft}`, `rename ${draft} ${folder}/secret_key`, `sync ${folder}`])
  expect(readFileSync(join(folder, 'secret_key'), 'utf8')).toBe(secrets[0]!)
  expect(readdirSync(folder)).not.toContain(draft.slice(folder.length + 1))
})

test('processes that start at once have the same secret', async () => {
  const folders = Array.from({ length: 20 }, newFolder)
  const startAt = Date.now() + 1500
  // All of them wait for the same moments, so that they meet in each folder.
  const script = `
    for (const [i, folder] of ${JSON.stringify(folders)}.entries()) {
      while (Date.now() < ${startAt} + i * 50);
      console.log(loadSecretKey(folder))
    }`

  const runs = await Promise.all(Array.from({ length: 4 }, () => run(script)))

  expect(runs[0]!.secrets).toHaveLength(folders.length)
  expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0])
  for (const { secrets } of runs) expect(secrets).toEqual(runs[0]!.secrets)
  expect(new Set(runs[0]!.secrets).size).toBe(folders.length)
}, 60_000)

test('one process at a time looks and renames, and lets the next one do so', async () => {
  const folder = newFolder()
  const path = JSON.stringify(join(folder, 'secret_key'))
  const load = `loadSecretKey(${JSON.stringify(folder)})`
  const held = lockFile(folder, 'secret_key.lock')
  const refused = await run(load)
  held.close()
  const twice = await run(
    `const first = ${load}; require('node:fs').rmSync(${path}); console.log(first !== ${load})`,
  )

  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining('is in use by another')])
  expect([twice.exitCode, twice.secrets]).toEqual([0, ['true']])
}, 30_000)
