import type { Session } from '../../db/driver.ts'

const rowsAtOnce = 500

/** Each row of a query as JSON that the database makes, with the names of its columns. */
export const asJson = (query: string) => `select row_to_json(r)::text as json from (${query}) r`

/**
 * The one column of a query, which holds text, a batch at a time and never more in memory. The session must be in a
 * transaction.
 */
export async function* readTexts(session: Session, name: string, query: string): AsyncGenerator<string[]> {
  await session.execute(`declare ${name} no scroll cursor for ${query}`)
  while (true) {
    const rows = (await session.execute(`fetch forward ${rowsAtOnce} from ${name}`)) as [string][]
    if (rows.length > 0) yield rows.map(([text]) => text)
    collectNowAndThen()
    if (rows.length < rowsAtOnce) break
  }
  await session.execute(`close ${name}`)
}

/** One moment of the database for all that is read in a session, however long it takes. */
export const beginSnapshot =
  'begin isolation level repeatable read read only; set local idle_in_transaction_session_timeout = 0'

const callsBetween = 20
let calls = 0

/**
 * Frees memory after many batches. The embedded engine hands over buffers that the collector takes for small ones: left
 * alone it would let them grow to hundreds of megabytes.
 */
export function collectNowAndThen(): void {
  if (++calls % callsBetween === 0) Bun.gc(true)
}
