/**
 * What a migration may not do while replicas of the release before still serve (.github/CONTRIBUTING.md says why). A table that
 * the same file creates is free: no old replica knows it.
 */
const rules: [what: RegExp, why: string][] = [
  [
    /\brename\b/,
    'old replicas ask for the old name: add the new one, write both, and drop the old one in a later release',
  ],
  [
    /\bdrop (table|column|view|function|type|schema|sequence)\b/,
    'old replicas still use it: drop it in the release after the one that stopped using it',
  ],
  [
    /\balter column "?\w+"? (set data )?type\b/,
    'prepared statements of old replicas fail when a column that they return changes its type or collation: add a new column, copy, and drop the old one in a later release',
  ],
  [
    /\badd column (?!.*\bdefault\b)(?!.*\bgenerated\b).*\bnot null\b/,
    'old replicas insert rows without it: give it a default',
  ],
  [
    /\badd column .*\bgenerated always as\b.*\bstored\b/,
    'it writes every row of the table under an exclusive lock',
  ],
  [/\b(set not null|drop default)\b/, 'old replicas may insert rows without a value'],
  [
    /\badd constraint (?!.*\bnot valid\b)|\bcreate unique index\b/,
    'old replicas may write what it refuses, and it reads the whole table under a lock: add it as not valid, or in the release after',
  ],
  [/\b(concurrently|vacuum|begin|commit|rollback)\b/, 'each migration runs in one transaction'],
  [/\b(truncate|delete from)\b/, 'old replicas may still read these rows'],
]

/** The sentences about a migration that breaks a rule; a statement below a comment `-- Allowed: why` may. */
export function breaches(migration: string): string[] {
  const statements = migration
    .replaceAll('--> statement-breakpoint', ';')
    // What stands in a function's body or in a text is no statement of the migration.
    .replace(/\$\$.*?\$\$/gs, "''")
    .replace(/'(?:[^']|'')*'/g, "''")
    .split(';')
  const isAllowed = (statement: string) => /^\s*-- Allowed: \S/m.test(statement)
  const bare = (statement: string) => statement.replace(/--.*$/gm, '').replace(/\s+/g, ' ').trim()
  const created = statements.flatMap(text => /create table "?(\w+)/i.exec(bare(text))?.[1] ?? [])
  const isNew = (statement: string) =>
    created.some(table =>
      new RegExp(`^(create (unique )?index .* on|alter table|create table) "?${table}\\b`, 'i').test(
        statement,
      ),
    )

  const all = statements.map(bare).join(';')
  const refused = statements
    .filter(statement => !isAllowed(statement))
    .map(bare)
    .filter(statement => !isNew(statement))
    .flatMap(statement => {
      const lower = statement.toLowerCase()
      return rules.filter(([what]) => what.test(lower)).map(([, why]) => `${statement.slice(0, 100)}: ${why}`)
    })
  // What is refused altogether needs no further advice.
  return refused.length > 0 ? refused : unguardedDrop(all)
}

/** The program of the release that still reads what is dropped must not serve: it looks for this comment. */
function unguardedDrop(migration: string): string[] {
  const dropped = [...migration.matchAll(/drop (?:table|column) "?(\w+)/gi)].map(([, name]) => name!)
  const gone = dropped.filter(name => !new RegExp(`add column "?${name}\\b`, 'i').test(migration))
  if (gone.length === 0 || /comment on table drizzle\.__drizzle_migrations is/i.test(migration)) return []
  return [
    `${gone.join(', ')}: an older program would start and fail at requests: add \`comment on table drizzle.__drizzle_migrations is 'needs 0007_name'\` with the name of this migration`,
  ]
}
