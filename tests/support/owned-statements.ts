import { getTableName } from 'drizzle-orm'
import { registry } from '../../src/modules/table-registry.ts'

const owned = registry.flatMap(({ table, owner }) =>
  owner ? [{ table: getTableName(table), owner: owner.name }] : [],
)

/** A value of the request. */
const value = String.raw`(\(select )?\$\d`

/** What names the user besides the column of a table: what only that user knows or is. */
const others = ['normalized_email', 'token_hash', 'previous_hash']

const exceptions = [
  // Decides between 403 and 404 (`throwMissing` in src/modules/tasks/owned.ts).
  /^select "user_id" from "tasks" where "tasks"\."id" = \$1 limit \$2$/,
  // Ends the session of a refresh token, which our signature names (`endByToken` in src/modules/auth/sessions.ts).
  /^delete from "sessions" where "sessions"\."id" = \$1 returning "id"$/,
]

/** The statements about a user's rows that do not name the user, each with what to do. */
export function unownedStatements(texts: Iterable<string>): string[] {
  return [...texts].flatMap(text => {
    const tables = owned.filter(({ table }) => new RegExp(`\\b${table}\\b`).test(text))
    const columns = [...tables.map(({ owner }) => owner), ...(tables.length > 0 ? others : [])]
    const names = columns.some(column => new RegExp(`\\b${column}"? = ${value}`).test(text))
    if (
      tables.length === 0 ||
      names ||
      /^insert into |insert into "users"/.test(text) ||
      exceptions.some(exception => exception.test(text))
    )
      return []
    const conditions = tables.map(({ table, owner }) => `${table}.${owner} = …`).join(' or ')
    return [`this statement can read or change rows of another user; add ${conditions} to it: ${text}`]
  })
}
