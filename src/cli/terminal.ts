/** A message to the user of a command, on stderr; results go to stdout. */
export function say(message: string): void {
  process.stderr.write(`${message}\n`)
}

/** Wrong use of a command: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Writes a result to stdout and waits until it is written: the reader of a pipe may be slow. */
export async function print(data: string | Uint8Array): Promise<void> {
  // A failed write also emits `error`, which ends the program without a listener.
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(data, error => (error ? reject(error) : resolve()))
  })
}

/** Prints rows as lines of JSON, as they come, or as a table: `columns` says what stands below each heading. */
export async function printRows<Row extends object>(
  json: boolean,
  rows: Iterable<Row> | AsyncIterable<Row>,
  columns: Record<string, (row: Row) => string>,
): Promise<void> {
  const cells = [Object.keys(columns)]
  for await (const row of rows) {
    if (json) await print(`${JSON.stringify(row)}\n`)
    else cells.push(Object.values(columns).map(cellOf => cellOf(row)))
  }
  if (!json) await print(table(cells))
}

/** Rows with aligned columns. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => Bun.stringWidth(row[column]!))))
  const pad = (cell: string, column: number) => cell + ' '.repeat(widths[column]! - Bun.stringWidth(cell))
  return rows.map(row => `${row.map(pad).join('  ').trimEnd()}\n`).join('')
}

/** A moment in a table: to the minute, or `never`. */
export const minuteOf = (moment: string | null) => moment?.slice(0, 16).replace('T', ' ') ?? 'never'

/** Foreign text, safe for a terminal: one line without control characters. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}|\p{Cf}|\p{Zl}|\p{Zp}/gu, '\u{fffd}')
}

export type Progress = ReturnType<typeof createProgress>

const progressAfterMs = 1000
const progressEveryMs = 200

/**
 * Shows how many rows are done in one line on stderr, for work of more than a second; nothing without a terminal. For
 * `using`: the line goes at the end.
 */
export function createProgress(total?: number) {
  const shown = process.stderr.isTTY === true
  const begun = performance.now()
  let next = begun + progressAfterMs
  let done = 0
  let visible = false

  function clear() {
    if (visible) process.stderr.write('\r\x1b[K')
    visible = false
  }

  return {
    add(count: number) {
      done += count
      const now = performance.now()
      if (!shown || now < next) return
      next = now + progressEveryMs
      const rate = Math.round(done / ((now - begun) / 1000))
      const of = total === undefined ? '' : ` of ${total.toLocaleString('en')}`
      process.stderr.write(`\r\x1b[K${done.toLocaleString('en')}${of} rows, ${rate.toLocaleString('en')}/s`)
      visible = true
    },
    /** Prints a message above the line. */
    say(message: string) {
      clear()
      say(message)
    },
    [Symbol.dispose]: clear,
  }
}

/** Reads a new password, which is typed twice at a terminal. */
export async function readPassword(): Promise<string> {
  const password = await readSecret('Password: ')
  if (process.stdin.isTTY && (await readSecret('Repeat it: ')) !== password)
    throw new Error('the two passwords differ')
  return password
}

/**
 * Reads a secret: typed without an echo at a terminal, else the first line of stdin. Never an argument, which other
 * users of the machine can read.
 */
export async function readSecret(question: string): Promise<string> {
  if (process.stdin.isTTY) return readLine(question, { isHidden: true })
  for await (const line of console) return line.replace(/\r$/, '')
  return ''
}

/** Asks for a line at the terminal; `undefined` without a terminal. */
export async function ask(question: string): Promise<string | undefined> {
  return process.stdin.isTTY ? readLine(question) : undefined
}

async function readLine(question: string, { isHidden = false } = {}): Promise<string> {
  // Loaded here because `serve` does not need it.
  const { createInterface } = await import('node:readline')
  const output = isHidden ? undefined : process.stderr
  const terminal = createInterface({ input: process.stdin, output, terminal: true })
  if (isHidden) process.stderr.write(question)
  try {
    return await new Promise((resolve, reject) => {
      terminal.question(isHidden ? '' : question, resolve)
      terminal.once('SIGINT', () => reject(new Error('interrupted')))
      terminal.once('close', () => resolve(''))
    })
  } finally {
    terminal.close()
    if (isHidden) process.stderr.write('\n')
  }
}
