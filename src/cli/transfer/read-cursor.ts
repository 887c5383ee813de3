import type { DedicatedConnection } from '../../db/driver.ts'
import { withoutTransactionTimeout } from '../../db/migrator.ts'

/** How many rows are read, or added in one transaction: few, because a slow database has 2 s for it, too. */
export const rowsAtOnce = 200

/**
 * Reads the rows of a query as JSON objects, made by the database, a page at a time by a cursor. The connection must be in
 * a transaction.
 */
export async function* readJson(connection: DedicatedConnection, query: string): AsyncGenerator<string[]> {
  await connection.execute(`declare page no scroll cursor for select row_to_json(r)::text from (${query}) r`)
  while (true) {
    const rows = (await connection.execute(`fetch forward ${rowsAtOnce} from page`)) as [string][]
    if (rows.length > 0) yield rows.map(([text]) => text)
    collectGarbageSometimes()
    if (rows.length < rowsAtOnce) break
  }
  await connection.execute('close page')
}

/**
 * Begins a transaction in which every statement sees the database as it is now. The reader of a pipe may be slow; but of a
 * host that vanishes the server must not keep the locks, and the rows that are old since.
 */
export const beginSnapshot = `begin isolation level repeatable read read only; ${withoutTransactionTimeout};
  set local idle_in_transaction_session_timeout = '1h'`

const callsBetween = 20
let calls = 0

/**
 * Frees memory after many batches. The collector underestimates the buffers of the embedded engine, and would let them
 * grow to hundreds of megabytes.
 */
export function collectGarbageSometimes(): void {
  if (++calls % callsBetween === 0) Bun.gc(true)
}
