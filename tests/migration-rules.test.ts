import { describe, expect, test } from 'bun:test'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { Glob } from 'bun'
import { handwritten, tasksJson } from '../drizzle/handwritten.ts'
import config from '../drizzle.config.ts'
import { complete } from '../scripts/generate-migration.ts'
import { breaches } from './support/migration-rules.ts'
import { execute } from './support/postgres-server.ts'
import { emptyDatabase, privateDatabase } from './support/template.ts'

const root = join(import.meta.dir, '..')
const folder = join(root, 'drizzle')
const schema = `{${[config.schema].flat().join()}}`
const files = [...new Glob('*.sql').scanSync({ cwd: folder })].sort()
const read = (file: string) => Bun.file(join(folder, file)).text()

test.each(files)('%s does nothing that a replica of the release before would not survive', async file => {
  expect(breaches(await read(file))).toEqual([])
})

describe('the rules refuse', () => {
  test.each([
    ['alter table "tasks" rename column "title" to "name"', 'old replicas ask for the old name'],
    ['ALTER TABLE "tasks" DROP COLUMN "position";', 'old replicas still use it'],
    ['DROP TABLE "rate_limits"', 'old replicas still use it'],
    ['-- Allowed: not read.\nALTER TABLE "tasks" DROP COLUMN "position"', 'an older program would start'],
    [
      'ALTER TABLE "tasks" ALTER COLUMN "position" SET DATA TYPE text COLLATE "C"',
      'changes its type or collation',
    ],
    ['alter table users alter column email type varchar(300)', 'changes its type or collation'],
    ['ALTER TABLE "tasks" ADD COLUMN "list_id" uuid NOT NULL', 'give it a default'],
    [
      `ALTER TABLE "tasks" ADD COLUMN "html" text GENERATED ALWAYS AS (f(a, 'x;y')) STORED NOT NULL`,
      'exclusive lock',
    ],
    ['ALTER TABLE "tasks" ALTER COLUMN "due_at" SET NOT NULL', 'rows without a value'],
    ['ALTER TABLE "tasks" ALTER COLUMN "position" DROP DEFAULT', 'rows without a value'],
    [
      'ALTER TABLE "tasks" ADD CONSTRAINT "short" CHECK (char_length(title) < 9)',
      'may write what it refuses',
    ],
    ['CREATE UNIQUE INDEX "one" ON "tasks" ("user_id","title")', 'may write what it refuses'],
    ['CREATE INDEX CONCURRENTLY "quick" ON "tasks" ("title")', 'one transaction'],
    ['delete from tasks', 'may still read'],
    [
      'CREATE TABLE "lists" ("id" uuid);\nALTER TABLE "tasks" DROP COLUMN "position"',
      'old replicas still use it',
    ],
  ])('%s', (migration, why) => {
    expect(breaches(migration)).toEqual([expect.stringContaining(why)])
  })
})

test.each([
  'ALTER TABLE "tasks" ADD COLUMN "list_id" uuid',
  `ALTER TABLE "tasks" ADD COLUMN "color" text DEFAULT '' NOT NULL`,
  'CREATE INDEX "tasks_color" ON "tasks" ("user_id","color")',
  'ALTER TABLE "tasks" ADD CONSTRAINT "short" CHECK (char_length(title) < 9) NOT VALID',
  'CREATE TABLE "lists" ("id" uuid);--> statement-breakpoint\nCREATE UNIQUE INDEX "l" ON "lists" USING btree ("id");--> statement-breakpoint\nALTER TABLE "lists" ADD CONSTRAINT "c" CHECK (true)',
  `-- Allowed: no release since 0.3 reads it.\nALTER TABLE "tasks" DROP COLUMN "position";\nCOMMENT ON TABLE drizzle.__drizzle_migrations IS 'needs 0007_drop_position'`,
  'CREATE FUNCTION "f"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM "x"; COMMIT; END $$',
])('the rules take %s', migration => {
  expect(breaches(migration)).toEqual([])
})

test('the functions and triggers beside the tables are those of the migrations', async () => {
  const migrations = (await Promise.all(files.map(read))).join('\n')
  const advice = 'is in no migration: `bun run db:generate` writes it into the next one'
  const missing = handwritten.filter(text => !migrations.includes(text))
  expect(missing.map(text => `${text.split('\n')[0]} ${advice}`)).toEqual([])

  // What is made last under a name counts: that must be the text beside the tables.
  const made = (sql: string) =>
    sql.match(/(create (or replace )?|drop )(function|trigger) "\w+"[^;]*?(\$\$.*?\$\$)?;/gis) ?? []
  const nameOf = (statement: string) => /(function|trigger) "\w+"/i.exec(statement)![0].toLowerCase()
  expect(handwritten.flatMap(made)).toHaveLength(10)
  const last = new Map(made(migrations).map(statement => [nameOf(statement), statement]))
  const kept = [...last.values()].filter(statement => !statement.startsWith('DROP'))
  expect(kept.sort()).toEqual(handwritten.flatMap(made).sort())
})

test('the migration of a new field is generated whole, and breaks no rule', async () => {
  const withEstimate = (text: string) => text.replace(/(NEW\.)?"position"/, '$1"estimate"')
  const newJson = { trigger: withEstimate(tasksJson.trigger), rewrite: withEstimate(tasksJson.rewrite) }
  const others = handwritten.filter(text => !Object.values(tasksJson).includes(text))
  const statements = [
    'ALTER TABLE "tasks" ADD COLUMN "estimate" integer;',
    'ALTER TABLE "tasks" ADD CONSTRAINT "tasks_estimate_fk" FOREIGN KEY ("estimate") REFERENCES "x"("id");',
  ]
  const generated = statements.join('--> statement-breakpoint\n')
  const before = await Promise.all(files.map(read))

  const migration = complete(generated, before, [...others, ...Object.values(newJson)])

  expect(breaches(generated)).not.toEqual([])
  expect(breaches(migration)).toEqual([])
  const added = [statements[0], `${statements[1]!.slice(0, -1)} NOT VALID;`, newJson.trigger, newJson.rewrite]
  expect(migration).toBe(`${added.join('\n--> statement-breakpoint\n')}\n`)
})

test('a column that goes is dropped when no trigger names it any more', () => {
  const generated = [
    'ALTER TABLE "tasks" DROP COLUMN "estimate";',
    'ALTER TABLE "tasks" ADD COLUMN "effort" integer;',
  ]

  const migration = complete(generated.join('--> statement-breakpoint\n'), [], ['CREATE TRIGGER …'])

  expect(migration.trim().split('\n--> statement-breakpoint\n')).toEqual([
    generated[1]!,
    'CREATE TRIGGER …',
    generated[0]!,
  ])
})

test('a module’s tables are compared with the migrations', () => {
  const sources = [...new Glob('src/**/*.ts').scanSync({ cwd: root })]
  const withTables = sources.filter(path => readFileSync(join(root, path), 'utf8').includes('= pgTable('))
  const paths = [...withTables, 'src/modules/new/table.ts'].map(path => `./${path}`)

  expect(withTables.length).toBeGreaterThan(2)
  expect(paths.filter(path => !new Glob(schema).match(path))).toEqual([])
})

test('the tables are those of the migrations', () => {
  // In a copy: what drizzle-kit finds missing, it writes.
  const copy = mkdtempSync(join(tmpdir(), 'todo-api-drizzle-'))
  try {
    cpSync(folder, copy, { recursive: true })
    const out = relative(root, copy)
    const options = ['--dialect', 'postgresql', '--schema', schema, '--out', out]
    const { stdout, exitCode } = Bun.spawnSync(
      [process.execPath, 'node_modules/.bin/drizzle-kit', 'generate', ...options],
      { cwd: root },
    )
    expect(exitCode).toBe(0)
    const isComplete = stdout.toString().includes('No schema changes')
    expect(isComplete ? '' : 'the tables have changed: `bun run db:generate` writes the migration').toBe('')
  } finally {
    rmSync(copy, { recursive: true })
  }
})

test('the migrations make the database of the tables, triggers and functions', async () => {
  const { stdout } = Bun.spawnSync(
    [
      process.execPath,
      'node_modules/.bin/drizzle-kit',
      'export',
      '--dialect',
      'postgresql',
      '--schema',
      schema,
    ],
    { cwd: root },
  )
  const [migrated, made] = [await privateDatabase(), await emptyDatabase()]
  await execute(made.url, `${stdout}\n${handwritten.join('\n')}`)

  expect(await catalog(migrated.url)).toEqual(await catalog(made.url))
  await Promise.all([migrated.drop(), made.drop()])
}, 30_000)

/** What a database consists of, one definition a line. */
async function catalog(url: string): Promise<string[]> {
  const own = "in (select oid from pg_class where relnamespace = 'public'::regnamespace)"
  const rows = await execute(
    url,
    `select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attstorage,
         attcollation::regcollation, pg_get_expr(adbin, adrelid)) as line
       from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
       where attnum > 0 and not attisdropped and attrelid ${own}
     union all select concat_ws(' ', conname, conrelid::regclass, replace(pg_get_constraintdef(oid), ' NOT VALID', ''))
       from pg_constraint where contype <> 'n' and conrelid ${own}
     union all select pg_get_indexdef(indexrelid) from pg_index where indrelid ${own}
     union all select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal and tgrelid ${own}
     union all select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
     union all select concat_ws(' ', oid::regclass, reloptions) from pg_class where reloptions is not null and oid ${own}
     order by line`,
  )
  return rows.map(({ line }) => line)
}
