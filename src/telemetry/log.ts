import { isSqlState } from '../lib/sql-state.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Record<string, unknown>

/** Writes whole lines. A promise resolves when they are written and rejects when they are lost. */
export type Write = (lines: string) => void | Promise<void>

const weight = { debug: 10, info: 20, warn: 30, error: 40 }
const flushAfterMs = 100
const flushAtBytes = 64 * 1024

export interface LogOptions {
  level: LogLevel
  /** As a function it is asked at the first line: what knows about terminals would load before the port is open. */
  pretty: boolean | (() => boolean)
  write: Write
  /** Fields of every line. */
  about?: Fields
  /** The size of one write at most. Processes that share a pipe need PIPE_BUF, 4096: larger writes could be mixed. */
  batchBytesMax?: number
  /** How much may wait in memory for a slow reader. */
  waitingBytesMax?: number
}

export type Log = ReturnType<typeof createLog>

interface Batch {
  text: string
  bytes: number
  lines: number
}

/**
 * One line per event: JSON, or `pretty` at a terminal. Lines are collected for up to 100 ms, because a system call for each
 * request costs more than its routing; warnings and errors are written at once.
 *
 * A reader that is too slow, or gone, costs lines, not memory or requests. Dropped lines are counted, and the count is
 * logged when writing is possible again.
 *
 * Secrets are not filtered here: callers never pass a body, a query value, a token or an SQL parameter, and errors go
 * through `errorFields`.
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
  let format: typeof formatJson | undefined
  /** In order; lines are added to the last one. */
  const batches: Batch[] = []
  /** The bytes in `batches` and of the write that is running. */
  let waitingBytes = 0
  let dropped = 0
  let reported = 0
  let timer: Timer | undefined
  let isWriting = false
  let written = Promise.resolve()

  function append(at: LogLevel, msg: string, fields?: Fields) {
    format ??= (typeof pretty === 'function' ? pretty() : pretty) ? formatPretty : formatJson
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
    else timer ??= setTimeout(flush, flushAfterMs)
  }

  function flush(): Promise<void> {
    if (timer) clearTimeout(timer)
    timer = undefined
    if (!isWriting) written = writeBatches()
    return written
  }

  /** Writes one batch after the other, also those added meanwhile; synchronously if `write` is. */
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
    info: (msg: string, fields?: Fields) => line('info', msg, fields),
    warn: (msg: string, fields?: Fields) => line('warn', msg, fields),
    error: (msg: string, fields?: Fields) => line('error', msg, fields),
    /** Writes collected lines; resolves when they are written. To be called before the process ends. */
    flush,
    /** The number of lost lines. */
    dropped: () => dropped,
  }
}

function formatJson(time: string, level: LogLevel, msg: string, fields?: Fields): string {
  return `${JSON.stringify({ time, level, msg, ...fields })}\n`
}

function formatPretty(time: string, level: LogLevel, msg: string, fields: Fields = {}): string {
  const clock = time.slice(11, 19)
  if (msg === 'request') return `${clock} ${formatRequest(fields)}\n`
  const rest = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${isPlain(name, value) ? value : escaped(value)}`)
  return `${[clock, level.toUpperCase().padEnd(5), msg, ...rest].join(' ')}\n`
}

/** With the clock 100 columns wide at most. The other fields are in the JSON lines. */
const requestColumns = 100 - 'hh:mm:ss '.length

function formatRequest({ method, route, status, ms, request_id }: Fields): string {
  const call = `${String(method).padEnd(6)} ${String(route).padEnd(27)}`
  const line = `${call} ${status} ${Number(ms).toFixed(1).padStart(8)} ms  ${request_id}`
  return line.length <= requestColumns ? line : `${line.slice(0, requestColumns - 1)}…`
}

/** JSON does not escape DEL and C1 controls; for a terminal, U+009B begins a control sequence. */
const escaped = (value: unknown) =>
  JSON.stringify(value)?.replace(/[\x7f-\x9f]/g, char => `\\u00${char.charCodeAt(0).toString(16)}`)

/** Whether a text can be printed as it is: one that could be taken for more fields is quoted, but a stack keeps its lines. */
const isPlain = (name: string, value: unknown) =>
  typeof value === 'string' && (name === 'stack' || !/[\p{Cc}\s="]/u.test(value))

/** Keep a line below PIPE_BUF. */
const messageLengthMax = 500
const stackLengthMax = 2000

/**
 * The fields of an error that may be logged. PostgreSQL repeats values in `detail` and in messages, so of a database error
 * only its code and names are logged, from the innermost cause.
 */
export function errorFields(error: unknown): Fields {
  let cause = error
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause
  if (!(cause instanceof Error)) return { error: typeof cause }
  // Two drivers: the embedded engine's has the shorter names.
  const { code, constraint_name, constraint, table_name, table, routine } = cause as Error &
    Record<string, unknown>
  const fromDatabase = isSqlState(code)
  return {
    error: cause.name,
    code,
    message: fromDatabase ? undefined : cause.message.slice(0, messageLengthMax),
    constraint: constraint_name ?? constraint,
    table: table_name ?? table,
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
