import type { Fields } from './log.ts'

/** A request that has been answered. */
interface Answered {
  requestId: string
  method: string
  /** The pattern, never the path: a path may hold what a user typed. */
  route: string
  status: number
  /** The signed-in user. */
  userId: string | undefined
  /** From the first hook to after the answer. */
  milliseconds: number
}

/** Called after every request; the fields that it returns are added to the access line. */
export type Observer = (answered: Answered) => Fields | undefined

/** What a statement does, and to which table. */
export interface StatementKind {
  operation: 'select' | 'insert' | 'update' | 'delete'
  table: string | undefined
}

/** Runs a statement and records it; is not shown its values or rows. */
export type AroundStatement = <T>(kind: StatementKind, text: string, run: () => Promise<T>) => Promise<T>

/** The connections to a database at one moment. */
export interface DatabaseStats {
  /** Connections: at most, with a statement, without one, and being opened. */
  size: number
  inUse: number
  idle: number
  opening: number
  /** Statements that have not been sent yet. */
  waiting: number
  /** No connection can be opened: every query is refused at once. */
  away: boolean
}
