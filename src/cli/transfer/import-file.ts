import type { AnyColumn } from 'drizzle-orm'
import { t } from 'elysia'
import { users } from '../../db/tables.ts'
import { instantInput, integer, nullable, text } from '../../http/schema.ts'
import { uuidPattern } from '../../lib/uuid.ts'
import { normalizeEmail } from '../../modules/auth/model.ts'
import { exportedTables, type RowType } from '../../modules/table-registry.ts'
import { toColumns } from '../../modules/tasks/to-columns.ts'
import { createCheck, passwordHash } from '../check-schema.ts'
import type { NewRow } from './bulk-insert.ts'
import { exportedColumns, exportFormat, zeroCounts } from './format.ts'
import type { Loader } from './loader.ts'
import { rowsAtOnce } from './read-cursor.ts'

/** Far longer than any line that `export` writes. */
const lineBytesMax = 1024 * 1024

interface Line {
  number: number
  /** As the line says it. */
  type: unknown
  value: Record<string, unknown>
}

type Entry = Line & { type: RowType }

/**
 * Adds the rows of an export, a batch at a time. Throws an Error that names every malformed line of a batch, which was not
 * added; the ones before were.
 */
export async function importFile(chunks: AsyncIterable<Uint8Array>, loader: Loader): Promise<void> {
  const seen = zeroCounts()
  let batch: Entry[] = []
  let end: Line | undefined

  async function flush() {
    check(batch)
    await loader.add(batch.map(toRow))
    for (const { type } of batch) seen[type]++
    batch = []
  }

  for await (const line of parse(splitLines(chunks))) {
    if (line.number === 1) checkHeader(line)
    else if (end) throw new Error(`line ${line.number}: nothing may follow the line of type "end"`)
    else if (line.type === 'end') end = line
    else if (!isEntry(line)) throw new Error(`line ${line.number}: its type is unknown to this program`)
    else if (batch.push(line) === rowsAtOnce) await flush()
  }
  await flush()
  // Before format 3 there were no lists.
  const isComplete = end && Object.entries(seen).every(([type, count]) => (end.value[type] ?? 0) === count)
  if (!isComplete) throw new Error('the file is not complete: its last line must count the others')
}

function checkHeader({ value }: Line) {
  if (value.format !== exportFormat.format) throw new Error('line 1: this is not a file that `export` wrote')
  if (![1, 2, exportFormat.version].includes(value.version as number)) {
    throw new Error('line 1: a newer program wrote this file; import it with that one')
  }
}

const id = text({ pattern: uuidPattern, wanted: 'a valid uuid' })
/** Half of what a number in JSON can be: room for all changes to come. */
const version = integer({ minimum: 0, maximum: 2 ** 52 })

/**
 * The types of the columns, and no rule of a request: those may have become stricter since the file was written. The
 * database has rules of its own, and refuses single rows by them.
 */
const checks = new Map(
  Object.keys(exportedTables).map(type => [type, createCheck(schemaOf(type as RowType))]),
)

function schemaOf(type: RowType) {
  const columns = exportedColumns(type).map(column => {
    const schema = column.notNull ? columnSchema(column) : nullable(columnSchema(column))
    return [column.name, column.notNull && !column.hasDefault ? schema : t.Optional(schema)]
  })
  // Format 1 has `seq` in the place of `last_version`.
  const versions = type === 'user' && { last_version: t.Optional(version), seq: t.Optional(version) }
  return t.Object({ ...Object.fromEntries(columns), ...versions })
}

function columnSchema(column: AnyColumn) {
  if (column === users.passwordHash) return passwordHash
  const type = column.getSQLType()
  if (type === 'uuid') return id
  if (type.startsWith('timestamp')) return instantInput()
  if (type.endsWith('int')) return integer()
  if (type === 'boolean') return t.Boolean()
  if (type === 'text[]') return t.Array(text())
  if (type.startsWith('text')) return text()
  throw new Error(`import does not know columns of the type ${type}`)
}

const isEntry = (line: Line): line is Entry => checks.has(line.type as string)

/** Throws with everything that is wrong in a batch. */
function check(lines: readonly Entry[]) {
  const problems = lines.flatMap(({ number, type, value }) => {
    const problem = checks.get(type)!(value)
    return problem ? [`line ${number}: ${problem}`] : []
  })
  if (problems.length > 0) throw new Error(problems.join('\n'))
}

function toRow({ number, type: table, value }: Entry): NewRow {
  // As the database writes them, to which they are compared: one in upper case is the same (RFC 9562, 4).
  for (const name of ['id', 'user_id'])
    if (typeof value[name] === 'string') value[name] = value[name].toLowerCase()
  const row = { table, columns: value as NewRow['columns'], label: `line ${number}` }
  if (table === 'task') return { ...row, columns: { ...row.columns, ...toColumns(value) } }
  if (table !== 'user') return row
  const columns = { ...row.columns, normalized_email: normalizeEmail(value.email as string) }
  return { ...row, columns, version: beyond(Number(value.last_version ?? value.seq ?? 0)) }
}

/** A version that no client has seen, whatever the exporting database has given out since: as `reset-sync` takes it. */
const beyond = (version: number) => Math.max(version + 2 ** 32, Date.now() * 1000)

async function* parse(lines: AsyncIterable<string>): AsyncGenerator<Line> {
  let number = 0
  for await (const line of lines) {
    number++
    const value = parseObject(line)
    if (!value) throw new Error(`line ${number}: this is not a JSON object`)
    yield { number, type: value.type, value }
  }
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** Yields the lines of a file that is read in chunks. */
async function* splitLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let rest = ''
  let count = 0
  try {
    for await (const chunk of chunks) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = lines.pop()!
      count += lines.length
      yield* lines
      if (rest.length > lineBytesMax) throw new Error(`line ${count + 1}: longer than ${lineBytesMax} bytes`)
    }
    decoder.decode()
  } catch (error) {
    throw error instanceof TypeError ? new Error(`after line ${count}: this is not UTF-8`) : error
  }
  // A file that was cut off; `importFile` reports that its last line is missing.
  if (rest !== '') yield rest
}
