/**
 * `bun run release VERSION [--dry-run]`: makes a release on this machine and uploads nothing. It sets the version,
 * puts version and date over the changelog's Unreleased section, builds, runs all checks, writes the executable and its
 * SHA-256 sum to dist/release, commits and tags. If a step fails, the files are as before.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Release {
  /** Folder of the repository. */
  root: string
  version: string
  /** As `2026-11-26`. */
  date: string
  /** Build and checks; the first that fails ends the release. */
  commands: string[][]
  /** Only says what would happen. */
  isDryRun: boolean
}

/** Makes the release and returns the lines that say what was done. Throws if it is not possible. */
export async function release({ root, version, date, commands, isDryRun }: Release): Promise<string[]> {
  const files = newFiles(root, version, date)
  if (run(root, ['git', 'status', '--porcelain']) !== '')
    throw new Error('there are changes without a commit')
  if (run(root, ['git', 'tag', '--list', `v${version}`]) !== '') throw new Error(`there is a tag v${version}`)
  if (isDryRun) {
    const steps = [...commands.map(command => command.join(' ')), `git commit and git tag v${version}`]
    return [`would write ${[...files.keys()].join(', ')}; then:`, ...steps]
  }

  let lines: string[]
  try {
    for (const [path, content] of files) writeFileSync(join(root, path), content)
    for (const command of commands) await runVisibly(root, command)
    lines = pack(root, version)
  } catch (error) {
    run(root, ['git', 'checkout', '--quiet', '--', ...files.keys()])
    throw error
  }
  run(root, ['git', 'commit', '--quiet', '--all', '--message', `release: ${version}`])
  run(root, ['git', 'tag', '--annotate', `v${version}`, '--message', `todo-api ${version}`])
  return [
    ...lines,
    `committed and tagged v${version}; to publish: git push --follow-tags, and upload dist/release`,
  ]
}

/** The files that a release changes, by path. */
function newFiles(root: string, version: string, date: string): Map<string, string> {
  const read = (path: string) => readFileSync(join(root, path), 'utf8')
  const manifest = read('package.json')
  const { version: current } = JSON.parse(manifest) as { version: string }
  if (!/^\d+\.\d+\.\d+$/.test(version)) throw new Error('the version must look like 1.2.3')
  if (Bun.semver.order(version, current) < 0) throw new Error(`the version is ${current} already`)

  const changelog = read('CHANGELOG.md')
  const unreleased = changelog.split('## Unreleased\n')[1]?.split(/^## /m)[0]
  if (!unreleased?.trim()) throw new Error('CHANGELOG.md has nothing under "## Unreleased"')
  return new Map([
    ['package.json', manifest.replace(`"version": "${current}"`, `"version": "${version}"`)],
    ['CHANGELOG.md', changelog.replace('## Unreleased\n', `## Unreleased\n\n## ${version} - ${date}\n`)],
    ['deploy/kubernetes.yaml', read('deploy/kubernetes.yaml').replace(/(todo-api:)[\d.]+/, `$1${version}`)],
  ])
}

/** Puts the executable and its sum into dist/release. */
function pack(root: string, version: string): string[] {
  const executable = join(root, 'dist/todo-api')
  const built = run(root, [executable, 'version'])
  if (built !== version) throw new Error(`dist/todo-api is version ${built}`)

  const folder = join(root, 'dist/release')
  const name = `todo-api-${version}-${process.platform}-${process.arch}`
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  copyFileSync(executable, join(folder, name))
  const sum = new Bun.CryptoHasher('sha256').update(readFileSync(executable)).digest('hex')
  writeFileSync(join(folder, 'SHA256SUMS'), `${sum}  ${name}\n`)
  return [`dist/release/${name}`, `dist/release/SHA256SUMS: ${sum}`]
}

/** Runs a program and returns what it prints. */
function run(cwd: string, command: string[]): string {
  const { success, stdout, stderr } = Bun.spawnSync(command, { cwd })
  if (!success) throw new Error(`${command.join(' ')} failed: ${stderr.toString().trim()}`)
  return stdout.toString().trim()
}

async function runVisibly(cwd: string, command: string[]): Promise<void> {
  const exitCode = await Bun.spawn(command, { cwd, stdio: ['ignore', 'inherit', 'inherit'] }).exited
  if (exitCode !== 0) throw new Error(`${command.join(' ')} failed`)
}

if (import.meta.main) {
  const args = process.argv.slice(2).filter(arg => arg !== '--dry-run')
  if (args.length !== 1) {
    console.error('Usage: bun run release VERSION [--dry-run]')
    process.exit(2)
  }
  try {
    const lines = await release({
      root: join(import.meta.dir, '..'),
      version: args[0]!,
      date: new Date().toISOString().slice(0, 10),
      // It builds first.
      commands: [[process.execPath, 'run', 'check']],
      isDryRun: process.argv.includes('--dry-run'),
    })
    for (const line of lines) console.log(line)
  } catch (error) {
    console.error((error as Error).message)
    process.exit(1)
  }
}
