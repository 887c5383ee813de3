import { messages, type PGlite, protocol } from '@electric-sql/pglite'
import { parsers, type QueryOptions, type Rows, serializers } from '../driver.ts'

const { serialize } = protocol

/** A statement that the engine has parsed. */
interface Prepared {
  name: string
  /** Type numbers of the values. */
  takes: readonly number[]
  columns: readonly Column[]
}

interface Column {
  name: string
  dataTypeID: number
}

/** Beyond this many different texts all are forgotten: each holds a plan in the engine's memory. */
const preparedMax = 500

/**
 * The one connection to the engine, over PGlite's protocol functions. PGlite's own `query` parses and describes at
 * every call, which takes two to three times the CPU. Calls must not overlap; the caller sees to that.
 */
export class EmbeddedConnection {
  readonly #prepared = new Map<string, Prepared>()
  #names = 0

  constructor(private readonly engine: PGlite) {}

  /** Runs one statement with values. Throws the engine's error, with the SQLSTATE in `code`. */
  async query(text: string, values: readonly unknown[], options: QueryOptions = {}): Promise<Rows> {
    const { name, takes, columns } = options.prepare ? await this.#keep(text) : await this.#parse('', text)
    const bound = values.map((value, i) => this.#encode(value, takes[i]))
    const answer = await this.#send(
      serialize.bind({ statement: name, values: bound }),
      serialize.execute(),
      serialize.sync(),
    )
    return this.#rows(answer, columns)
  }

  /** Runs a script; returns the rows of its last statement. What it began and did not end goes on. */
  async execute(script: string): Promise<Rows> {
    return this.#rows(await this.#send(serialize.query(script)))
  }

  /** Undoes what is half done and everything that was set: the connection is as new. */
  async reset(): Promise<void> {
    if (this.engine.isInTransaction()) await this.execute('rollback')
    await this.execute('discard all')
    this.#prepared.clear()
  }

  /** A statement that stays: parsed once, and soon planned once. */
  async #keep(text: string): Promise<Prepared> {
    const known = this.#prepared.get(text)
    if (known) return known
    if (this.#prepared.size >= preparedMax) {
      await this.execute('deallocate all')
      this.#prepared.clear()
    }
    const prepared = await this.#parse(`s${++this.#names}`, text)
    this.#prepared.set(text, prepared)
    return prepared
  }

  async #parse(name: string, text: string): Promise<Prepared> {
    const answer = await this.#send(
      serialize.parse({ name, text }),
      serialize.describe({ type: 'S', name }),
      serialize.sync(),
    )
    const values = answer.find(message => message instanceof messages.ParameterDescriptionMessage)
    const columns = answer.find(message => message instanceof messages.RowDescriptionMessage)
    return { name, takes: values?.dataTypeIDs ?? [], columns: columns?.fields ?? [] }
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
    if (value === null || value === undefined) return null
    const write = type === undefined ? undefined : (serializers[type] ?? this.engine.serializers[type])
    return write ? write(value as never) : String(value)
  }
}
