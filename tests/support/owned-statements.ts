import { getTableName } from 'drizzle-orm'
import { registry } from '../../src/modules/table-registry.ts'

const owners = new Map(
  registry.flatMap(({ table, owner }) => (owner ? [[getTableName(table), owner.name] as const] : [])),
)

/** What names the user besides the column of a table: what only that user knows or is. */
const others = ['normalized_email', 'token_hash']

/** A table that a query reads or changes, and its other name if it has one. */
const reference =
  /\b(?:from|join|update) "?(\w+)"?(?: (?!(?:where|set|on|left|inner|join|order|group|limit|for|returning)\b)"?(\w+)"?)?/g

const exceptions = [
  // Decides between 403 and 404 (`throwMissing` in src/modules/tasks/owned.ts).
  /^select bool_or\("user_id" = \$1::uuid\) from "(tasks|lists)" where "\1"\."id" = \$2$/,
  // Ends the session of a refresh token, which our signature names (`endByToken` in src/modules/auth/sessions.ts).
  /^delete from "sessions" where "sessions"\."id" = \$1 returning "id"$/,
  // Finds the session by its refresh token, the present or the last one (`refresh` there).
  /^update "sessions" set .* and \("sessions"\."token_hash" = \$\d or \("sessions"\."previous_hash" = \$\d and [^()]+\(\) [^()]+\)\)\) returning "user_id"$/,
]

/** The statements about a user's rows that do not name the user, each with what to do. */
export function unownedStatements(texts: Iterable<string>): string[] {
  return [...texts].flatMap(text => {
    const tables = exceptions.some(exception => exception.test(text)) ? [] : queries(text).flatMap(unowned)
    if (tables.length === 0) return []
    const conditions = [...new Set(tables)].map(table => `${table}.${owners.get(table)} = …`).join(' and ')
    return [`this statement can read or change rows of another user; add ${conditions} to it: ${text}`]
  })
}

/** The query and those inside it, each without the others and without alternatives in parentheses. */
function queries(text: string): string[] {
  const found: string[] = []
  let rest = text.replace(/'[^']*'/g, `''`).replace(/\(select (\$\d+(::\w+)?)\)/g, '$1')
  for (const innermost = /\(([^()]*)\)/; innermost.test(rest); ) {
    rest = rest.replace(innermost, (_, content: string) => {
      const isQuery = /^\s*(select|insert|update|delete)\b/.test(content)
      if (isQuery) found.push(content)
      return isQuery || /^where\b| or /.test(content) ? '' : ` ${content} `
    })
  }
  return [...found, rest]
}

/** The tables of a query whose rows it takes without the user. An `or` beside the user leaves others in. */
function unowned(query: string): string[] {
  const conditions = query.split(/\bwhere\b/)[1] ?? ''
  return Array.from(query.matchAll(reference), ([, table = '', alias = table]) => {
    const columns = [owners.get(table), ...others].join('|')
    const user = new RegExp(`(\\b${alias}"?\\.|[^.\\w"])"?(${columns})"? = \\$\\d`)
    return owners.has(table) && (/ or /.test(conditions) || !user.test(conditions)) ? [table] : []
  }).flat()
}
