import { brokenConstraint, databaseError } from '../../db/pg-error.ts'
import type { Operations } from '../operations.ts'
import { patiently } from '../patiently.ts'
import { type Progress, printable } from '../terminal.ts'
import type { NewRow, Outcome } from './bulk-insert.ts'
import { zeroCounts } from './format.ts'
import { collectGarbageSometimes } from './read-cursor.ts'

export type Loader = ReturnType<typeof createLoader>

/**
 * Adds users and tasks from elsewhere in short transactions, as any writer does: a service may run meanwhile. Rows that
 * are already in the database stay unchanged, so running it twice does no harm; rows that cannot be added are named.
 */
export function createLoader(
  { addRows }: Pick<Operations, 'addRows'>,
  progress: Pick<Progress, 'add' | 'say'>,
) {
  const counts = { added: zeroCounts(), present: 0, skipped: 0 }

  function refuse(label: string, reason: string) {
    counts.skipped++
    progress.add(1)
    progress.say(printable(`skipped ${label}: ${reason}`))
  }

  function count({ table, label, columns }: NewRow, outcome: Outcome) {
    if (outcome === 'taken') return refuse(label, 'another account here has this e-mail address')
    if (outcome === 'orphan') return refuse(label, `its user ${columns.user_id} is not here`)
    progress.add(1)
    if (outcome === 'added') counts.added[table]++
    else counts.present++
  }

  /**
   * Adds at most `rowsAtOnce` rows. A batch that the database refuses is halved until the refused row is found; the
   * others are added.
   */
  async function add(rows: readonly NewRow[]): Promise<void> {
    if (rows.length === 0) return
    try {
      const outcomes = await patiently(() => addRows(rows))
      for (const [i, row] of rows.entries()) count(row, outcomes[i]!)
      collectGarbageSometimes()
    } catch (error) {
      const reason = refusal(error)
      if (reason === undefined) throw error
      if (rows.length === 1) return refuse(rows[0]!.label, reason)
      const middle = rows.length >> 1
      await add(rows.slice(0, middle))
      await add(rows.slice(middle))
    }
  }

  return { add, refuse, counts }
}

/** Why the database refuses a row: a constraint of the table (class 23), or a value it cannot read (22). */
function refusal(error: unknown): string | undefined {
  const failure = databaseError(error)
  if (!failure || !/^2[23]/.test(failure.code)) return undefined
  const constraint = brokenConstraint(error)
  return constraint ? `it breaks the rule ${constraint}` : `the database refuses it (${failure.code})`
}
