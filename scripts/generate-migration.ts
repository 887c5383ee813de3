/**
 * `bun run db:generate`: compares the tables with the last migration and writes the next one, with drizzle-kit, and adds
 * what drizzle-kit does not know: functions, triggers and the JSON of rows (`handwritten`), and that a constraint does not
 * look at rows that exist.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { handwritten } from '../drizzle/handwritten.ts'

const root = join(import.meta.dir, '..')
const breakpoint = '\n--> statement-breakpoint\n'

/** The migrations of a folder. */
const filesOf = (folder: string) => readdirSync(folder).filter(name => name.endsWith('.sql'))

/** A migration of drizzle-kit's, complete. `before` are those before it. */
export function complete(generated: string, before: readonly string[], texts = handwritten): string {
  const known = before.join(breakpoint)
  const statements = generated.split('--> statement-breakpoint').map(statement => notValid(statement.trim()))
  // A trigger names columns: those that come are there before it, those that go after it.
  const { after = [], before: first = [] } = Object.groupBy(statements, statement =>
    /\bDROP COLUMN\b/i.test(statement) ? 'after' : 'before',
  )
  const missing = texts.filter(text => !known.includes(text))
  return `${[...first, ...missing, ...after].join(breakpoint)}\n`
}

/** Old replicas do not know a rule about a new column, and rows that exist have no value in it. */
const notValid = (statement: string) =>
  /^ALTER TABLE "tasks" ADD CONSTRAINT .* (CHECK|FOREIGN KEY)/i.test(statement)
    ? statement.replace(/;$/, ' NOT VALID;')
    : statement

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
