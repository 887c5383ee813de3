import { AsyncLocalStorage } from 'node:async_hooks'

/** How long the statements of one request may take together, waiting included. With the pool's clock it stays below 2 s. */
export const budgetMs = 1900

interface CurrentRequest {
  leftMs: number
  /** The user; before that is known the client's address, which is computed only if a statement asks for it. */
  caller: string | (() => string)
}

const current = new AsyncLocalStorage<CurrentRequest>()

/**
 * Runs a request whose statements share `budgetMs`: each may have to wait for a lock, and the client waits for all of
 * them. Only statements count, because a request may also wait for its body, or for a password to be hashed. What goes on
 * after the answer has no budget. Until its user is known, the caller is `address`.
 */
export async function withTimeBudget<T>(work: () => T | Promise<T>, address: () => string): Promise<T> {
  const budget: CurrentRequest = { leftMs: budgetMs, caller: address }
  try {
    return await current.run(budget, work)
  } finally {
    budget.leftMs = Number.POSITIVE_INFINITY
  }
}

/** Runs a statement or a transaction, which is over at `deadline`, and takes its time from the budget of its request. */
export async function spendBudget<T>(work: (deadline: number) => Promise<T>): Promise<T> {
  const budget = current.getStore()
  const begun = performance.now()
  try {
    return await work(begun + Math.min(budgetMs, budget?.leftMs ?? budgetMs))
  } finally {
    if (budget) budget.leftMs -= performance.now() - begun
  }
}

/** Begins a new step of long work that is done in several: what is done was done in time. */
export function renewTimeBudget() {
  const budget = current.getStore()
  if (budget) budget.leftMs = budgetMs
}

/** Says whose request this is: the statements of one user must not keep those of others waiting. */
export function setCaller(userId: string) {
  const request = current.getStore()
  if (request) request.caller = userId
}

/** Whose a statement is: the user's, or before that is known the client's address. Undefined: the service's own. */
export function currentCaller(): string | undefined {
  const request = current.getStore()
  if (typeof request?.caller === 'function') request.caller = request.caller()
  return request?.caller
}

/** Runs work that a request begins and does not wait for. */
export const withoutTimeBudget = <T>(work: () => T): T => current.exit(work)
