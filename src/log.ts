export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Record<string, unknown>

/** Where lines go: one call a batch of whole lines. */
export type Write = (lines: string) => unknown

const weight = { debug: 10, info: 20, warn: 30, error: 40 }
const flushAfterMs = 100
const flushAtLength = 64 * 1024

export interface LogOptions {
  level: LogLevel
  pretty: boolean
  write: Write
  /** Stands in every line. */
  about?: Fields
}

export type Log = ReturnType<typeof createLog>

/**
 * One line per event: JSON, or `pretty` for people at a terminal. Lines are gathered for up to 100 ms, because a
 * write to the system for each request costs more than the request's routing; warnings and errors go out at once.
 *
 * Nothing here hides secrets: the callers hand over only fields that hold none (never a body, a query value, a
 * token or an SQL parameter), and errors pass through `errorFields`.
 */
export function createLog({ level, pretty, write, about }: LogOptions) {
  const threshold = weight[level]
  const format = pretty ? formatForPeople : formatJson
  let buffer = ''
  let written: unknown
  let timer: Timer | undefined

  function flush(): unknown {
    if (timer) clearTimeout(timer)
    timer = undefined
    if (buffer === '') return written
    const lines = buffer
    buffer = ''
    written = write(lines)
    return written
  }

  function line(at: LogLevel, msg: string, fields?: Fields) {
    if (weight[at] < threshold) return
    buffer += format(new Date().toISOString(), at, msg, about ? { ...about, ...fields } : fields)
    if (weight[at] >= weight.warn || buffer.length > flushAtLength) flush()
    else timer ??= setTimeout(flush, flushAfterMs).unref()
  }

  return {
    debug: (msg: string, fields?: Fields) => line('debug', msg, fields),
    info: (msg: string, fields?: Fields) => line('info', msg, fields),
    warn: (msg: string, fields?: Fields) => line('warn', msg, fields),
    error: (msg: string, fields?: Fields) => line('error', msg, fields),
    /** Writes what is gathered; call it before the process ends, and await what it gives, if `write` gives a promise. */
    flush,
  }
}

function formatJson(time: string, level: LogLevel, msg: string, fields?: Fields): string {
  return `${JSON.stringify({ time, level, msg, ...fields })}\n`
}

function formatForPeople(time: string, level: LogLevel, msg: string, fields: Fields = {}): string {
  const rest = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${isPlain(name, value) ? value : JSON.stringify(value)}`)
  return `${time.slice(11, 23)} ${level.toUpperCase().padEnd(5)} ${msg} ${rest.join(' ')}\n`
}

/** Whether a terminal may get a text as it is: with no control character in it, but a stack keeps its lines. */
const isPlain = (name: string, value: unknown) =>
  typeof value === 'string' && (name === 'stack' || !/\p{Cc}/u.test(value))

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
    message: fromDatabase ? undefined : cause.message,
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
}
