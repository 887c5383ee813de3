import { AsyncLocalStorage } from 'node:async_hooks'

/** How long the statements of one request may take together, waiting included. With the pool's clock it stays below 2 s. */
export const budgetMs = 1900

export interface TimeBudget {
  leftMs: number
}

const current = new AsyncLocalStorage<TimeBudget>()

/** What is left for the statements of the request that calls this; `undefined` outside of requests. */
export const timeBudget = (): TimeBudget | undefined => current.getStore()

/**
 * Runs a request whose statements share `budgetMs`: each may have to wait for a lock, and the client waits for all of
 * them. Only statements count, because a request may also wait for its body, or for a password to be hashed. What goes on
 * after the answer has no budget.
 */
export async function withTimeBudget<T>(work: () => T | Promise<T>): Promise<T> {
  const budget = { leftMs: budgetMs }
  try {
    return await current.run(budget, work)
  } finally {
    budget.leftMs = Number.POSITIVE_INFINITY
  }
}

/** Begins a new step of long work that is done in several: what is done was done in time. */
export function renewTimeBudget() {
  const budget = timeBudget()
  if (budget) budget.leftMs = budgetMs
}

/** Runs work that a request begins and does not wait for. */
export const withoutTimeBudget = <T>(work: () => T): T => current.exit(work)
