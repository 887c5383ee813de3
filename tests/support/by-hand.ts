import type { Driver } from '../../src/db/driver.ts'

/**
 * Changes tasks as no statement of the service may, without a number: to make a row old, or broken. The trigger that
 * refuses such an update is off while the statement runs.
 */
export async function byHand(sql: Driver['query'], statement: string, values: unknown[] = []): Promise<void> {
  await sql('alter table tasks disable trigger tasks_write', [])
  try {
    await sql(statement, values)
  } finally {
    await sql('alter table tasks enable trigger tasks_write', [])
  }
}
