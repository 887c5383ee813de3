import type { AroundStatement, StatementKind } from '../telemetry/observer.ts'
import type { Driver, Query } from './driver.ts'

/** The same driver with every statement inside `around`, also in transactions. For metrics and traces. */
export function observeDriver(driver: Driver, around: AroundStatement): Driver {
  const observe =
    (query: Query): Query =>
    (text, values, options) =>
      around(readKind(text), text, () => query(text, values, options))
  return {
    ...driver,
    query: observe(driver.query),
    transaction: work => driver.transaction(query => work(observe(query))),
  }
}

/** What counts is the write, however many reads stand around it; `for update` and `do update` are none. */
const write = /(?<!\b(?:for|key|do)\s+)\b(insert|update|delete)\s+(?:into\s+|from\s+)?"?(\w+)"?/
const read = /\bfrom\s+"?(\w+)"?/

export function readKind(text: string): StatementKind {
  const [, operation, target] = write.exec(text) ?? []
  if (operation) return { operation: operation as StatementKind['operation'], table: target }
  return { operation: 'select', table: read.exec(text)?.[1] }
}
