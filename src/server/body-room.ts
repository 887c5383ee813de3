import { AppError } from '../lib/errors.ts'

/** The largest body that a route takes (a batch), in bytes. One that is larger, or of unknown length, counts as much. */
const largestBytes = 1024 * 1024

/** What most routes take. Bodies up to this size are not counted: a connection costs about as much. */
const smallBytes = 32 * 1024

/**
 * Counts the large bodies of the requests that are being answered, at most `max` bytes: Bun keeps what arrives of a body while
 * its request waits for anything, and a few hundred unfinished batches would take all memory.
 */
export function createBodyRoom(max = 64 * largestBytes) {
  const taken = new Map<string, number>()
  let total = 0

  function add(address: string, bytes: number) {
    total += bytes
    const own = (taken.get(address) ?? 0) + bytes
    if (own > 0) taken.set(address, own)
    else taken.delete(address)
  }

  /**
   * Answers a request that has a body. Without room it throws `unavailable` in the same turn, before any of the body is kept. An
   * address may take as much as it leaves to others, as in lib/fair-queue.ts.
   */
  return async function withRoom(
    request: Request,
    addressOf: (request: Request) => string,
    answer: (request: Request) => Response | Promise<Response>,
  ): Promise<Response> {
    // A chunked body has no length, and Bun shows one that was sent twice as `5, 5`.
    const announced = Number(request.headers.get('content-length')) || largestBytes
    if (announced <= smallBytes) return answer(request)
    const bytes = Math.min(announced, largestBytes)
    const address = addressOf(request)
    if ((taken.get(address) ?? 0) + bytes > max - total)
      throw new AppError('unavailable', { cause: new Error('there is no room for another large body') })
    add(address, bytes)
    try {
      return await answer(request)
    } finally {
      add(address, -bytes)
    }
  }
}
