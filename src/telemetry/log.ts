export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Record<string, unknown>

/** Takes whole lines; a promise settles when they are written, and is rejected when they are lost. */
export type Write = (lines: string) => void | Promise<void>

const weight = { debug: 10, info: 20, warn: 30, error: 40 }
const flushAfterMs = 100
const flushAtBytes = 64 * 1024

export interface LogOptions {
  level: LogLevel
  pretty: boolean
  write: Write
  /** Stands in every line. */
  about?: Fields
  /** The most that is written at once. Processes that share a pipe need PIPE_BUF, 4096: more could be mixed. */
  batchBytesMax?: number
  /** The most that waits in memory for a slow reader. */
  waitingBytesMax?: number
}

export type Log = ReturnType<typeof createLog>

interface Batch {
  text: string
  bytes: number
  lines: number
}

/**
 * One line per event: JSON, or `pretty` at a terminal. Lines are gathered for up to 100 ms, because a write to the
 * system for each request costs more than the request's routing; warnings and errors are written at once.
 *
 * A reader that is too slow, or gone, costs lines, never memory or requests: at most `waitingBytesMax` wait for it.
 * Dropped lines are counted, and reported by a line as soon as one can be written again.
 *
 * Nothing here hides secrets: the callers pass only fields that hold none (never a body, a query value, a
 * token or an SQL parameter), and errors pass through `errorFields`.
 */
export function createLog({
  level,
  pretty,
  write,
  about,
  batchBytesMax = flushAtBytes,
  waitingBytesMax = 1024 * 1024,
}: LogOptions) {
  const threshold = weight[level]
  const format = pretty ? formatPretty : formatJson
  /** In order; the last one is still filled. */
  const batches: Batch[] = []
  /** What is in `batches` or being written. */
  let waitingBytes = 0
  let dropped = 0
  let reported = 0
  let timer: Timer | undefined
  let isWriting = false
  let written = Promise.resolve()

  function append(at: LogLevel, msg: string, fields?: Fields) {
    const text = format(new Date().toISOString(), at, msg, about ? { ...about, ...fields } : fields)
    const bytes = Buffer.byteLength(text)
    if (waitingBytes + bytes > waitingBytesMax) {
      dropped++
      return
    }
    waitingBytes += bytes
    const last = batches.at(-1)
    if (!last || last.bytes + bytes > batchBytesMax) {
      batches.push({ text, bytes, lines: 1 })
      return
    }
    last.text += text
    last.bytes += bytes
    last.lines++
  }

  function line(at: LogLevel, msg: string, fields?: Fields) {
    if (weight[at] < threshold) return
    append(at, msg, fields)
    if (weight[at] >= weight.warn || waitingBytes >= flushAtBytes) flush()
    else timer ??= setTimeout(flush, flushAfterMs).unref()
  }

  function flush(): Promise<void> {
    if (timer) clearTimeout(timer)
    timer = undefined
    if (!isWriting) written = writeBatches()
    return written
  }

  /** One batch after the other, what is added meanwhile included. Without a wait as long as `write` needs none. */
  async function writeBatches() {
    isWriting = true
    for (let batch = batches.shift(); batch; batch = batches.shift()) {
      let isWritten = true
      try {
        const writing = write(batch.text)
        if (writing) await writing
      } catch {
        isWritten = false
      }
      waitingBytes -= batch.bytes
      if (!isWritten) dropped += batch.lines
      else if (dropped > reported) reportDropped()
    }
    isWriting = false
  }

  function reportDropped() {
    const count = dropped - reported
    reported = dropped
    append('warn', 'log lines dropped', { count })
  }

  return {
    debug: (msg: string, fields?: Fields) => line('debug', msg, fields),
    info: (msg: string, fields?: Fields) => line('info', msg, fields),
    warn: (msg: string, fields?: Fields) => line('warn', msg, fields),
    error: (msg: string, fields?: Fields) => line('error', msg, fields),
    /** Writes what is gathered; resolves when it is written. To be called before the process ends. */
    flush,
    /** How many lines were lost so far. */
    dropped: () => dropped,
  }
}

function formatJson(time: string, level: LogLevel, msg: string, fields?: Fields): string {
  return `${JSON.stringify({ time, level, msg, ...fields })}\n`
}

function formatPretty(time: string, level: LogLevel, msg: string, fields: Fields = {}): string {
  const rest = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${isPlain(name, value) ? value : escaped(value)}`)
  return `${time.slice(11, 23)} ${level.toUpperCase().padEnd(5)} ${msg} ${rest.join(' ')}\n`
}

/** JSON leaves DEL and the C1 controls as they are; to a terminal U+009B begins a command. */
const escaped = (value: unknown) =>
  JSON.stringify(value)?.replace(/[\x7f-\x9f]/g, char => `\\u00${char.charCodeAt(0).toString(16)}`)

/** Whether a terminal may get a text as it is: with no control character in it, but a stack keeps its lines. */
const isPlain = (name: string, value: unknown) =>
  typeof value === 'string' && (name === 'stack' || !/\p{Cc}/u.test(value))

/** So that a line stays under PIPE_BUF. */
const messageLengthMax = 500
const stackLengthMax = 2000

/**
 * What may be said of a failure. Drizzle puts the SQL and its parameters into the message, and PostgreSQL repeats
 * values in `detail`: so for a database error only its code and names are taken, from the innermost cause.
 */
export function errorFields(error: unknown): Fields {
  let cause = error
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause
  if (!(cause instanceof Error)) return { error: typeof cause }
  const { code, constraint_name, constraint, table_name, routine } = cause as Error & Record<string, unknown>
  const fromDatabase = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)
  return {
    error: cause.name,
    code,
    message: fromDatabase ? undefined : cause.message.slice(0, messageLengthMax),
    constraint: constraint_name ?? constraint,
    table: table_name,
    routine,
    stack: fromDatabase ? undefined : stackFrames(cause),
  }
}

/** The frames alone: the first lines of a stack repeat the message. */
function stackFrames(error: Error): string | undefined {
  return error.stack
    ?.split('\n')
    .filter(line => /^\s+at /.test(line))
    .join('\n')
    .slice(0, stackLengthMax)
}
