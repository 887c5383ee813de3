import type { Driver } from './driver.ts'

/** What a statement does, and to which table. */
export interface StatementKind {
  operation: 'select' | 'insert' | 'update' | 'delete'
  table: string | undefined
}

/** Runs a statement and takes note of it; hears neither its values nor its rows. */
export type AroundStatement = <T>(kind: StatementKind, text: string, run: () => Promise<T>) => Promise<T>

/** The same driver with every statement inside `around`. For metrics and traces; nobody else needs it. */
export function observeDriver(driver: Driver, around: AroundStatement): Driver {
  return {
    ...driver,
    query: (text, values) => around(kindOf(text), text, () => driver.query(text, values)),
  }
}

const kinds = new Map<string, StatementKind>()
/** Lists have a text for each combination of filters. */
const kindsMax = 1000

function kindOf(text: string): StatementKind {
  let kind = kinds.get(text)
  if (!kind) {
    if (kinds.size >= kindsMax) kinds.clear()
    kind = readKind(text)
    kinds.set(text, kind)
  }
  return kind
}

/** What counts is the write, however many reads stand around it; `for update` and `do update` are none. */
const write = /(?<!\b(?:for|key|do)\s+)\b(insert|update|delete)\s+(?:into\s+|from\s+)?"?(\w+)"?/i
const read = /\bfrom\s+"?(\w+)"?/i

export function readKind(text: string): StatementKind {
  const [, operation, target] = write.exec(text) ?? []
  if (operation) return { operation: operation.toLowerCase() as StatementKind['operation'], table: target }
  return { operation: 'select', table: read.exec(text)?.[1] }
}
