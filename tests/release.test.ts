import { afterEach, beforeEach, expect, test } from 'bun:test'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Release, release } from '../scripts/release.ts'

const project = join(import.meta.dir, '..')
let root: string

/** A small repository with the files of this one that a release changes. */
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'todo-api-release-'))
  for (const path of ['package.json', 'deploy/kubernetes.yaml', '.gitignore', 'scripts/release.ts']) {
    cpSync(join(project, path), join(root, path))
  }
  await Bun.write(
    join(root, 'CHANGELOG.md'),
    '# Changelog\n\n## Unreleased\n\n- New.\n\n## 0.0.1 - 2020-01-01\n\n- Old.\n',
  )
  git('init', '--quiet')
  git('config', 'user.name', 'test')
  git('config', 'user.email', 'test@example.com')
  commit()
})
afterEach(() => rmSync(root, { recursive: true }))

/** Makes an executable that says the version of package.json, as the real build does. */
const build = [
  'sh',
  '-c',
  `mkdir -p dist
  version=$(sed -n 's/.*"version": "\\(.*\\)",/\\1/p' package.json)
  printf '#!/bin/sh\\necho %s\\n' "$version" > dist/todo-api && chmod +x dist/todo-api`,
]

const releaseOf = (version: string, given: Partial<Release> = {}) =>
  release({ root, version, date: '2031-02-03', commands: [build], isDryRun: false, ...given })

test('a release sets the version everywhere and dates the changelog, in a commit with a tag', async () => {
  await releaseOf('7.8.9')

  expect(JSON.parse(read('package.json')).version).toBe('7.8.9')
  expect(read('deploy/kubernetes.yaml')).toContain('/todo-api:7.8.9\n')
  expect(read('CHANGELOG.md')).toBe(
    '# Changelog\n\n## Unreleased\n\n## 7.8.9 - 2031-02-03\n\n- New.\n\n## 0.0.1 - 2020-01-01\n\n- Old.\n',
  )
  expect(git('log', '-1', '--format=%s', 'v7.8.9')).toBe('release: 7.8.9')
  expect(git('status', '--porcelain')).toBe('')
})

test('a release leaves the executable with a sum that sha256sum confirms, and nothing of the one before', async () => {
  await Bun.write(join(root, 'dist/release/todo-api-0.0.1-linux-x64'), '')

  await releaseOf('7.8.9')

  const check = Bun.spawnSync(['sha256sum', '--check', 'SHA256SUMS'], { cwd: join(root, 'dist/release') })
  expect(check.stdout.toString()).toBe(`todo-api-7.8.9-${process.platform}-${process.arch}: OK\n`)
  expect(readdirSync(join(root, 'dist/release'))).toHaveLength(2)
})

test('when a check fails, everything is as before', async () => {
  await expect(releaseOf('7.8.9', { commands: [build, ['false']] })).rejects.toThrow('false failed')
  expectUnchanged()
})

test('a build of another version is not released', async () => {
  const stale = [
    'sh',
    '-c',
    'mkdir -p dist; printf "#!/bin/sh\\necho 1.1.1\\n" > dist/todo-api; chmod +x dist/todo-api',
  ]
  await expect(releaseOf('7.8.9', { commands: [stale] })).rejects.toThrow('dist/todo-api is version 1.1.1')
  expectUnchanged()
})

test('a dry run says what would happen and changes nothing', async () => {
  const lines = await releaseOf('7.8.9', { isDryRun: true })

  expect(lines.join('\n')).toContain('package.json, CHANGELOG.md, deploy/kubernetes.yaml')
  expect(existsSync(join(root, 'dist'))).toBe(false)
  expectUnchanged()
})

test.each([
  [['7.8.9', '--dry-run'], 0, 'would write package.json', ''],
  [['7.8', '--dry-run'], 1, '', 'must look like'],
  [[], 2, '', 'Usage: bun run release VERSION'],
  [['7.8.9', '8.0.0'], 2, '', 'Usage: bun run release VERSION'],
])('bun scripts/release.ts %j ends with exit code %d', (args, exitCode, stdout, stderr) => {
  const done = Bun.spawnSync([process.execPath, join(root, 'scripts/release.ts'), ...args])

  expect([done.exitCode, String(done.stdout), String(done.stderr)]).toEqual([
    exitCode,
    stdout ? expect.stringContaining(stdout) : '',
    stderr ? expect.stringContaining(stderr) : '',
  ])
  expectUnchanged()
})

test.each([
  ['v7.8.9', 'must look like'],
  ['7.8', 'must look like'],
  ['0.0.1', 'already'],
])('%s is no version to release', async (version, message) => {
  await expect(releaseOf(version)).rejects.toThrow(message)
  expectUnchanged()
})

test('a release needs something under Unreleased, a tree without changes and a tag that is free', async () => {
  git('tag', 'v7.8.9')
  await expect(releaseOf('7.8.9')).rejects.toThrow('there is a tag v7.8.9')

  await Bun.write(
    join(root, 'CHANGELOG.md'),
    '# Changelog\n\n## Unreleased\n\n## 0.0.1 - 2020-01-01\n\n- Old.\n',
  )
  await expect(releaseOf('7.9.0')).rejects.toThrow('nothing under "## Unreleased"')

  await Bun.write(join(root, 'CHANGELOG.md'), '# Changelog\n\n## Unreleased\n\n- Not committed.\n')
  await expect(releaseOf('7.9.0')).rejects.toThrow('changes without a commit')
})

const read = (path: string) => readFileSync(join(root, path), 'utf8')

function git(...args: string[]): string {
  const { stdout, stderr, success } = Bun.spawnSync(['git', ...args], { cwd: root })
  if (!success) throw new Error(stderr.toString())
  return stdout.toString().trim()
}

function commit() {
  git('add', '--all')
  git('commit', '--quiet', '--message', 'before')
}

function expectUnchanged() {
  expect(git('status', '--porcelain')).toBe('')
  expect(git('log', '--format=%s')).toBe('before')
  expect(git('tag')).toBe('')
}
