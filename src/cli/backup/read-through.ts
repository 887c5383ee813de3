import type { Driver } from '../../db/driver.ts'
import { openEmbedded } from '../../db/embedded/embedded.ts'
import { databaseError } from '../../db/pg-error.ts'

/**
 * Calls `work` with the database in an unpacked folder that only this process knows, so that no space is kept free.
 * Damage is an Error with one line that names `file`.
 */
export async function withUnpacked<T>(
  folder: string,
  file: string,
  work: (driver: Driver) => Promise<T>,
): Promise<T> {
  const driver = await openEmbedded({ dataDir: folder, freeBytesMin: 0 })
  try {
    return await work(driver)
  } catch (cause) {
    const failure = databaseError(cause)
    const isDamage = failure && /^(58|XX)/.test(failure.code)
    throw isDamage ? new Error(`${file} is damaged: ${failure.message}`, { cause }) : cause
  } finally {
    await driver.close()
  }
}

/** Reads every value of every table; the rows of each. */
export async function readThrough(driver: Driver): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  const tables = await driver.query(
    `select quote_ident(tablename) from pg_tables where schemaname = 'public' order by 1`,
    [],
  )
  for (const [table] of tables as [string][]) {
    // The length of each row as text: computing it reads every value.
    const [row] = await driver.query(`select count(*), sum(octet_length(t::text)) from ${table} t`, [])
    counts[table] = Number(row![0])
  }
  return counts
}
