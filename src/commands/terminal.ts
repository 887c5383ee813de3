/** How a command talks to a person: messages on stderr, results on stdout. */

/** A message for people. */
export function say(message: string): void {
  process.stderr.write(`${message}\n`)
}

/** Wrong use of a command: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Writes a result, and waits until it has gone: a pipe may be slower than we are. */
export async function print(data: string | Uint8Array): Promise<void> {
  // The failure of a write is told twice, and an event that nobody listens to ends the program.
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(data, error => (error ? reject(error) : resolve()))
  })
}

/** Rows with aligned columns, the first row being the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => Bun.stringWidth(row[column]!))))
  const pad = (cell: string, column: number) => cell + ' '.repeat(widths[column]! - Bun.stringWidth(cell))
  return rows.map(row => `${row.map(pad).join('  ').trimEnd()}\n`).join('')
}

/** What came from somebody else, fit for a terminal: no control characters, one line. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}|\p{Cf}|\p{Zl}|\p{Zp}/gu, '\u{fffd}')
}

export type Progress = ReturnType<typeof createProgress>

const progressAfterMs = 1000
const progressEveryMs = 200

/** One line on stderr that is written over, for work that takes longer than a second; nothing without a terminal. */
export function createProgress(unit: string, total?: number) {
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
      process.stderr.write(
        `\r\x1b[K${done.toLocaleString('en')}${of} ${unit}, ${rate.toLocaleString('en')}/s`,
      )
      visible = true
    },
    /** A message above the line. */
    say(message: string) {
      clear()
      say(message)
    },
    clear,
  }
}

/**
 * A password: typed twice without an echo at a terminal, else the first line of stdin. Never an argument, which
 * everybody on the machine can read.
 */
export async function readPassword(): Promise<string> {
  if (!process.stdin.isTTY) return (await Bun.stdin.text()).split(/\r?\n/, 1)[0]!
  const password = await typeHidden('Password: ')
  if ((await typeHidden('Once more: ')) !== password) throw new Error('the two passwords differ')
  return password
}

/** Asks for a line at the terminal; `undefined` when there is none. */
export async function ask(question: string): Promise<string | undefined> {
  if (!process.stdin.isTTY) return undefined
  process.stderr.write(question)
  for await (const line of console) return line
  return undefined
}

async function typeHidden(question: string): Promise<string> {
  const { stdin } = process
  process.stderr.write(question)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8')
  let typed = ''
  try {
    for await (const chunk of stdinChunks()) {
      for (const key of chunk) {
        if (key === '\r' || key === '\n' || key === '\x04') return typed
        if (key === '\x03') throw new Error('interrupted')
        if (key === '\x7f' || key === '\b') typed = [...typed].slice(0, -1).join('')
        else if (key === '\x15') typed = ''
        else if (key >= ' ') typed += key
      }
    }
    return typed
  } finally {
    stdin.setRawMode(false)
    stdin.pause()
    process.stderr.write('\n')
  }
}

/** What is typed, piece by piece; unlike the stream's own iterator it leaves the stream open for a second question. */
async function* stdinChunks(): AsyncGenerator<string> {
  while (true)
    yield await new Promise<string>(resolve => process.stdin.once('data', data => resolve(String(data))))
}
