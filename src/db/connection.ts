import { messages, type PGlite, protocol } from '@electric-sql/pglite'
import { parsers, serializers } from './driver.ts'

const { serialize } = protocol

/** A statement that the engine has parsed and will plan once. */
interface Prepared {
  name: string
  /** Type numbers of the values and of the columns. */
  takes: readonly number[]
  gives: readonly number[]
}

/** Beyond this many different texts all are forgotten: each holds a plan in the engine's memory. */
const preparedMax = 500

/**
 * The one connection to the engine, over PGlite's protocol functions. Each text is prepared once: PGlite's own
 * `query` parses and plans at every call, which takes two to three times the CPU.
 * Calls must not overlap; the caller sees to that.
 */
export class Connection {
  readonly #prepared = new Map<string, Prepared>()
  #names = 0

  constructor(private readonly engine: PGlite) {}

  /** Runs one statement with values. Throws the engine's error, with the SQLSTATE in `code`. */
  async query(text: string, values: readonly unknown[]): Promise<unknown[][]> {
    const { name, takes, gives } = this.#prepared.get(text) ?? (await this.#prepare(text))
    const bound = values.map((value, i) => this.#encode(value, takes[i]))
    const answer = await this.#send(
      serialize.bind({ statement: name, values: bound }),
      serialize.execute(),
      serialize.sync(),
    )
    return this.#rows(answer, gives)
  }

  /** Runs a script; gives the rows of its last statement. What it began and did not end goes on. */
  async execute(script: string): Promise<unknown[][]> {
    return this.#rows(await this.#send(serialize.query(script)))
  }

  /** Undoes what is half done and everything that was set: the connection is as new. */
  async reset(): Promise<void> {
    if (this.engine.isInTransaction()) await this.execute('rollback')
    await this.execute('discard all')
    this.#prepared.clear()
  }

  async #prepare(text: string): Promise<Prepared> {
    if (this.#prepared.size >= preparedMax) await this.reset()
    const name = `s${++this.#names}`
    const answer = await this.#send(
      serialize.parse({ name, text }),
      serialize.describe({ type: 'S', name }),
      serialize.sync(),
    )
    const values = answer.find(message => message instanceof messages.ParameterDescriptionMessage)
    const columns = answer.find(message => message instanceof messages.RowDescriptionMessage)
    const prepared = { name, takes: values?.dataTypeIDs ?? [], gives: columns ? typesOf(columns) : [] }
    this.#prepared.set(text, prepared)
    return prepared
  }

  #send(...parts: Uint8Array[]): Promise<messages.BackendMessage[]> {
    return this.engine.execProtocolStream(Buffer.concat(parts), { syncToFs: false })
  }

  #rows(answer: messages.BackendMessage[], gives: readonly number[] = []): unknown[][] {
    let types = gives
    let rows: unknown[][] = []
    let last = rows
    for (const message of answer) {
      if (message instanceof messages.RowDescriptionMessage) types = typesOf(message)
      else if (message instanceof messages.DataRowMessage) rows.push(this.#decode(message.fields, types))
      else if (message instanceof messages.CommandCompleteMessage) {
        last = rows
        rows = []
      }
    }
    return last
  }

  #decode(fields: (string | null)[], types: readonly number[]): unknown[] {
    return fields.map((field, i) => {
      const type = types[i]!
      const parse = parsers[type] ?? this.engine.parsers[type]
      return field === null || !parse ? field : parse(field, type)
    })
  }

  #encode(value: unknown, type: number | undefined): string | null {
    if (value === null || value === undefined) return null
    const write = type === undefined ? undefined : (serializers[type] ?? this.engine.serializers[type])
    return write ? write(value as never) : String(value)
  }
}

function typesOf(description: messages.RowDescriptionMessage): number[] {
  return description.fields.map(field => field.dataTypeID)
}
