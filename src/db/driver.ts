/**
 * What both databases give the rest of the program: one statement in, rows out.
 *
 * There is deliberately no transaction here. A transaction that is held open between statements does not
 * survive a lost connection (docs/decisions/0003-one-statement.md), so whatever must be atomic is one statement.
 */
export interface Driver {
  readonly kind: 'postgres' | 'embedded'
  /**
   * Runs one statement. A row is an array in the order of the select list; `codecs` says what a cell looks like.
   * Throws `AppError('unavailable')` when the database cannot answer in time, else the driver's error,
   * with the SQLSTATE in `code`.
   */
  query(text: string, values: readonly unknown[]): Promise<unknown[][]>
  /** Opens a session of its own for migrations: several statements, no deadline. */
  session<T>(work: (session: Session) => Promise<T>): Promise<T>
  /**
   * Embedded only: copies the database's folder, as it is between two statements; the others wait meanwhile. The copy
   * holds all that was answered, and opens as after a crash. Throws an Error with one line when space is short.
   */
  copyTo?(folder: string): Promise<void>
  /** Embedded only: resolves with the reason when the database cannot go on; the process should end then. */
  readonly lost?: Promise<string>
  /** Answers what is under way (at most `seconds`), then lets go of the database. */
  close(seconds?: number): Promise<void>
  /** How its connections are doing. */
  stats?(): DatabaseStats
}

/** The connections to a database at one moment. */
export interface DatabaseStats {
  /** Connections at most; those with a statement on them, without one, and being opened. */
  size: number
  inUse: number
  idle: number
  opening: number
  /** Statements that have not been sent yet. */
  waiting: number
  /** Nobody answers: everyone is turned away at once. */
  away: boolean
}

/** One connection that belongs to the caller. */
export interface Session {
  /** Runs a script of one or several statements without values; gives the rows of the last one. */
  execute(script: string): Promise<unknown[][]>
}

/** PostgreSQL's type numbers (`select oid from pg_type`) that need the same look on both drivers. */
const oid = {
  int8: 20,
  json: 114,
  date: 1082,
  textArray: 1009,
  timestamp: 1114,
  timestamptz: 1184,
  jsonb: 3802,
}

const text = (value: string) => value

/**
 * How a cell arrives, by type number. Everything else is as the drivers agree: text, number, boolean, null.
 * `int8` is a number: our counters stay far below 2^53. Times stay PostgreSQL's text, which keeps microseconds.
 */
export const parsers: Record<number, (value: string) => unknown> = {
  [oid.int8]: Number,
  [oid.date]: text,
  [oid.timestamp]: text,
  [oid.timestamptz]: text,
  [oid.textArray]: parseTextArray,
  [oid.json]: JSON.parse,
  [oid.jsonb]: JSON.parse,
}

/** How a value leaves, by the type that PostgreSQL expects. JSON values are passed as objects, lists of text as arrays. */
export const serializers: Record<number, (value: never) => string> = {
  [oid.int8]: String,
  [oid.date]: text,
  [oid.timestamp]: text,
  [oid.timestamptz]: text,
  [oid.textArray]: formatTextArray,
  [oid.json]: JSON.stringify,
  [oid.jsonb]: JSON.stringify,
}

/** Reads PostgreSQL's text form of `text[]` (one dimension, no NULLs: our columns allow neither). */
export function parseTextArray(value: string): string[] {
  if (value === '{}') return []
  if (!value.includes('"')) return value.slice(1, -1).split(',')
  const items: string[] = []
  const pattern = /"((?:[^"\\]|\\.)*)"|([^,{}"]+)/g
  for (const [, quoted, plain] of value.matchAll(pattern)) {
    items.push(quoted === undefined ? plain! : quoted.replace(/\\(.)/gs, '$1'))
  }
  return items
}

/** Writes the text form of `text[]`, every item quoted. Drizzle hands over the text form itself. */
export function formatTextArray(items: readonly string[] | string): string {
  if (typeof items === 'string') return items
  return `{${items.map(item => `"${item.replace(/["\\]/g, '\\$&')}"`).join(',')}}`
}
