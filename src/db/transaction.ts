import type { Query } from './driver.ts'

/**
 * Runs `work` between `begin` and `commit` on a connection that nothing else uses meanwhile. `run` never moves to
 * another connection: once its connection is lost, it rejects.
 *
 * The first statement that fails decides: those behind it are not sent, and even if `work` goes on, all is rolled back.
 * When the rollback is not answered, `abandon` must end the connection.
 */
export async function runTransaction<T>(
  run: Query,
  abandon: () => void | Promise<void>,
  work: (query: Query) => Promise<T>,
): Promise<T> {
  let isOver = false
  let failed: { error: unknown } | undefined
  /** Settles when the statements so far are answered. */
  let answered: Promise<unknown> = Promise.resolve()

  const query: Query = (text, values, options) => {
    if (isOver) return Promise.reject(new Error('The transaction of this statement is over'))
    const answer = answered.then(async () => {
      if (failed) throw failed.error
      return run(text, values, options)
    })
    answered = answer.catch(error => {
      failed ??= { error }
    })
    return answer
  }

  await run('begin', [])
  try {
    const result = await work(query).finally(() => {
      isOver = true
    })
    await answered
    if (failed) throw (failed as { error: unknown }).error
    await run('commit', [])
    return result
  } catch (error) {
    await answered
    await run('rollback', []).catch(abandon)
    throw error
  }
}
