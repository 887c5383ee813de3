/**
 * `bun run db:generate`: compares the tables with the last migration and writes the next one, with drizzle-kit, and adds
 * what drizzle-kit does not know: functions and triggers (`handwritten`), the storage of a column that is added again,
 * and why a statement is allowed that tests/migration-rules.test.ts would refuse.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { handwritten } from '../src/modules/table-registry.ts'
import { tasksStorage } from '../src/modules/tasks/table.ts'

const root = join(import.meta.dir, '..')
const breakpoint = '\n--> statement-breakpoint\n'

/** The migrations of a folder, oldest first. */
const filesOf = (folder: string) =>
  readdirSync(folder)
    .filter(name => name.endsWith('.sql'))
    .sort()

/** A migration of drizzle-kit's, complete. `before` are those before it, oldest first. */
export function complete(generated: string, before: readonly string[], texts = handwritten): string {
  const known = before.join(breakpoint)
  const missing = texts.filter(text => !known.includes(text))
  const isFunction = (text: string) => text.startsWith('CREATE FUNCTION') && !text.includes('CREATE TRIGGER')
  const functions = missing.filter(isFunction)
  const others = missing.filter(text => !isFunction(text))
  const statements = generated.split('--> statement-breakpoint').map(statement => statement.trim())
  // The JSON is made of the other columns, so they come first; and a column that is added again has lost its storage.
  const { json = [], rest = [] } = Object.groupBy(statements, text => (addsJson(text) ? 'json' : 'rest'))
  if (json.length > 0 && !others.includes(tasksStorage)) others.push(tasksStorage)
  const dropped = functions.flatMap(text => dropOlder(text, known))
  return [...functions, ...[...rest, ...json].map(allow), ...dropped, ...others]
    .filter(statement => statement !== '')
    .join(breakpoint)
    .concat('\n')
}

const addsJson = (statement: string) => /ALTER TABLE "tasks" ADD COLUMN "json"/i.test(statement)

/** The JSON of a task is a column whose name and type stay, so that old replicas do not miss it. */
function allow(statement: string): string {
  const table = /ALTER TABLE "tasks" (DROP COLUMN|ADD COLUMN) "json"/i
  if (table.test(statement)) return `-- Allowed: name and type stay, and old replicas wait.\n${statement}`
  // Old replicas do not know a rule about a new column, and rows that exist have no value in it.
  return /^ALTER TABLE "tasks" ADD CONSTRAINT .* (CHECK|FOREIGN KEY)/i.test(statement)
    ? statement.replace(/;$/, ' NOT VALID;')
    : statement
}

/** A function with other parameters is another function: the older one of the name goes. */
function dropOlder(text: string, known: string): string[] {
  const name = /FUNCTION ("\w+")/.exec(text)![1]!
  const older = known.match(new RegExp(`CREATE FUNCTION ${name}\\([^)]*\\)`, 'g'))?.at(-1)
  if (!older) return []
  const types = older
    .slice(older.indexOf('(') + 1, -1)
    .replace(/"\w+" /g, '')
    .trim()
  return [`-- Allowed: nothing calls it any more.\nDROP FUNCTION ${name}(${types});`]
}

if (import.meta.main) {
  const folder = join(root, 'drizzle')
  const known = filesOf(folder)
  const kit = [
    process.execPath,
    join(root, 'node_modules/.bin/drizzle-kit'),
    'generate',
    ...process.argv.slice(2),
  ]
  const { exitCode } = Bun.spawnSync(kit, { cwd: root, stdio: ['inherit', 'inherit', 'inherit'] })
  if (exitCode !== 0) process.exit(exitCode)
  const before = known.map(file => readFileSync(join(folder, file), 'utf8'))
  for (const file of filesOf(folder).filter(file => !known.includes(file))) {
    const path = join(folder, file)
    writeFileSync(path, complete(readFileSync(path, 'utf8'), before))
  }
}
