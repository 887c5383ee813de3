import type { Query } from './driver.ts'

/** What a transaction runs on: it never moves to another connection, and rejects once its own is lost. */
interface Exclusive {
  run: Query
  /** Ends the connection, or makes it as new. */
  destroy(): void | Promise<void>
}

/**
 * Runs `work` between `begin` and `commit` on a connection that nothing else uses meanwhile.
 *
 * The first statement that fails decides: even if `work` goes on, all is rolled back. So is a `begin` that fails: a limit
 * that is reached at its end leaves the session in a failed transaction. A rollback that fails ends the connection.
 */
export async function runTransaction<T>(
  connection: Exclusive,
  work: (query: Query) => Promise<T>,
): Promise<T> {
  const { run } = connection
  let isOver = false
  const failures: unknown[] = []
  /** Settles when the statements so far are answered. */
  let answered: Promise<unknown> = Promise.resolve()

  const query: Query = (text, values, options) => {
    if (isOver) return Promise.reject(new Error('The transaction of this statement is over'))
    const answer = answered.then(() => run(text, values, options))
    answered = answer.catch(error => failures.push(error))
    return answer
  }

  try {
    await run('begin', [])
    const result = await work(query).finally(() => {
      isOver = true
    })
    await answered
    if (failures.length > 0) throw failures[0]
    await run('commit', [])
    return result
  } catch (error) {
    await answered
    await run('rollback', []).catch(() => connection.destroy())
    throw error
  }
}
