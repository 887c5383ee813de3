import { messages, type PGlite, protocol } from '@electric-sql/pglite'
import { parsers, type QueryOptions, type Rows, serializers } from '../driver.ts'

const { serialize } = protocol

/** A statement that the engine has parsed. */
interface Prepared {
  name: string
  /** OIDs. */
  parameterTypes: readonly number[]
  columns: readonly Column[]
}

interface Column {
  name: string
  dataTypeID: number
}

/** Each text that is prepared has a plan in the engine's memory: of more than that the oldest goes. */
const preparedMax = 500

/**
 * The connection to the engine, by PGlite's protocol functions. PGlite's own `query` parses and describes at every call,
 * which takes two to three times the CPU. Calls must not overlap.
 */
export class EmbeddedConnection {
  readonly #prepared = new Map<string, Prepared>()
  /** For names that never come again: a statement whose end failed is not mistaken for another one. */
  #names = 0

  constructor(private readonly engine: PGlite) {}

  /** Runs one statement with values. Throws the engine's error, with the SQLSTATE in `code`. */
  async query(text: string, values: readonly unknown[], options: QueryOptions = {}): Promise<Rows> {
    const known = options.prepare ? this.#prepared.get(text) : undefined
    const { name, parameterTypes, columns } = known ?? (await this.#parse(text, options.prepare))
    const bound = values.map((value, i) => this.#encode(value, parameterTypes[i]))
    const answer = await this.#send(
      serialize.bind({ statement: name, values: bound }),
      serialize.execute(),
      serialize.sync(),
    )
    return this.#rows(answer, columns)
  }

  /** Runs a script; returns the rows of its last statement. A transaction that it began and did not end stays open. */
  async execute(script: string): Promise<Rows> {
    return this.#rows(await this.#send(serialize.query(script)))
  }

  /** Rolls back an open transaction and resets every parameter. */
  async reset(): Promise<void> {
    if (this.engine.isInTransaction()) await this.execute('rollback')
    await this.execute('discard all')
    this.#prepared.clear()
  }

  /** Parses a statement; one that is kept is parsed once, and soon planned once. */
  async #parse(text: string, mayKeep = false): Promise<Prepared> {
    const name = mayKeep ? `s${++this.#names}` : ''
    const answer = await this.#send(
      ...(mayKeep ? this.#dropSurplus() : []),
      serialize.parse({ name, text }),
      serialize.describe({ type: 'S', name }),
      serialize.sync(),
    )
    const values = answer.find(message => message instanceof messages.ParameterDescriptionMessage)
    const columns = answer.find(message => message instanceof messages.RowDescriptionMessage)
    const parsed = { name, parameterTypes: values?.dataTypeIDs ?? [], columns: columns?.fields ?? [] }
    if (mayKeep) this.#prepared.set(text, parsed)
    return parsed
  }

  #dropSurplus(): Uint8Array[] {
    const [oldest] = this.#prepared
    if (!oldest || this.#prepared.size < preparedMax) return []
    const [text, { name }] = oldest
    this.#prepared.delete(text)
    return [serialize.close({ type: 'S', name })]
  }

  #send(...parts: Uint8Array[]): Promise<messages.BackendMessage[]> {
    return this.engine.execProtocolStream(Buffer.concat(parts), { syncToFs: false })
  }

  #rows(answer: messages.BackendMessage[], described: readonly Column[] = []): Rows {
    let columns = described
    let rows: Rows = []
    let last = rows
    for (const message of answer) {
      if (message instanceof messages.RowDescriptionMessage) columns = message.fields
      else if (message instanceof messages.DataRowMessage) rows.push(this.#decode(message.fields, columns))
      else if (message instanceof messages.CommandCompleteMessage) {
        last = Object.assign(rows, { columns })
        rows = []
      }
    }
    return last
  }

  #decode(fields: (string | null)[], columns: readonly Column[]): unknown[] {
    return fields.map((field, i) => {
      const { dataTypeID } = columns[i]!
      const parse = parsers[dataTypeID] ?? this.engine.parsers[dataTypeID]
      return field === null || !parse ? field : parse(field, dataTypeID)
    })
  }

  #encode(value: unknown, type: number | undefined): string | null {
    if (value === undefined) throw new TypeError('A value of a statement is undefined')
    if (value === null) return null
    const write = type === undefined ? undefined : (serializers[type] ?? this.engine.serializers[type])
    return write ? write(value as never) : String(value)
  }
}
