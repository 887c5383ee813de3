/**
 * `bun scripts/rolling-upgrade.ts COMMIT`: builds that commit and this tree, and runs tests/rolling.test.ts with both:
 * three replicas behind HAProxy are upgraded and downgraded one after another under load. Needs git and HAProxy.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const [commit] = process.argv.slice(2)
if (!commit) {
  console.error('usage: bun scripts/rolling-upgrade.ts COMMIT')
  process.exit(2)
}
process.chdir(join(import.meta.dir, '..'))
const tree = mkdtempSync(join(tmpdir(), 'todo-api-earlier-'))
try {
  await Bun.$`git worktree add --detach ${tree} ${commit}`.quiet()
  await Bun.$`${process.execPath} run build`.cwd(tree)
  const env = { ...process.env, ROLLING_FROM: join(tree, 'dist/todo-api') }
  await Bun.$`${process.execPath} run test tests/rolling.test.ts`.env(env)
} finally {
  await Bun.$`git worktree remove --force ${tree}`.quiet().nothrow()
  rmSync(tree, { recursive: true, force: true })
}
