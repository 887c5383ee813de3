import { getTableName } from 'drizzle-orm'
import { registry } from '../../src/modules/table-registry.ts'

const owned = registry.flatMap(({ table, owner }) =>
  owner ? [{ table: getTableName(table), owner: owner.name }] : [],
)

/** A value of the request. */
const value = String.raw`(\(select )?\$\d`

/** What names the user besides the column of a table: what only that user knows or is. */
const others = ['normalized_email', 'token_hash', 'previous_hash']

/** Ends the session of a refresh token, which our signature names (`endByToken` in src/modules/auth/sessions.ts). */
const exception = /^delete from "sessions" where "sessions"\."id" = \$1 returning "id"$/

/**
 * The statements about a user's rows that do not name the user, each with what to do. A statement names the user at least
 * as often as it reads or writes such tables, so that no part of it forgets the user.
 */
export function unownedStatements(texts: Iterable<string>): string[] {
  return [...texts].flatMap(text => {
    const tables = owned.filter(({ table }) => new RegExp(`\\b${table}\\b`).test(text))
    if (tables.length === 0 || /^insert into |insert into "users"/.test(text) || exception.test(text))
      return []
    const count = (pattern: string) => text.match(new RegExp(pattern, 'g'))?.length ?? 0
    const uses = count(`\\b(from|join|update)\\s+"?(${tables.map(({ table }) => table).join('|')})\\b`)
    const names = `\\b(${[...tables.map(({ owner }) => owner), ...others].join('|')})"? = `
    if (count(names) >= uses && count(names + value) > 0) return []
    const conditions = tables.map(({ table, owner }) => `${table}.${owner} = …`).join(' or ')
    return [`this statement can read or change rows of another user; add ${conditions} to it: ${text}`]
  })
}
