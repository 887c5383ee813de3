import { AppError } from '../lib/errors.ts'
import { bodyBytesMax, largestBodyBytes } from './body-sizes.ts'

interface Reservation {
  isRefused: boolean
  shrinkTo(bytes: number): void
}

/** Of the requests whose bodies may be large, while they are answered. */
const reservations = new WeakMap<Request, Reservation>()

/** What unread bodies may take together, in bytes. */
const roomBytes = 64 * largestBodyBytes

/** Whether a body that a request has counts: it is larger than most routes accept, or its length is unknown. */
export const mayBeLarge = (request: Request) => lengthOf(request) > bodyBytesMax

/**
 * Bounds what unread bodies take together: while a request waits, for its user or for the rest of its body, Bun buffers up to
 * 1 MiB of it. An address may hold at most as much as is left, as in lib/fair-queue.ts.
 */
export function createBodyRoom() {
  const taken = new Map<string, number>()
  let total = 0

  function add(address: string, bytes: number) {
    total += bytes
    const own = (taken.get(address) ?? 0) + bytes
    if (own > 0) taken.set(address, own)
    else taken.delete(address)
  }

  /** Answers a request while it holds room for its body. One that finds none is refused by the app: `requireBodyRoom`. */
  return async function withRoom(
    request: Request,
    address: string,
    answer: (request: Request) => Response | Promise<Response>,
  ): Promise<Response> {
    const bytes = Math.min(lengthOf(request), largestBodyBytes)
    const isRefused = (taken.get(address) ?? 0) + bytes > roomBytes - total
    let held = 0
    const resize = (size: number) => {
      add(address, size - held)
      held = size
    }
    if (!isRefused) resize(bytes)
    reservations.set(request, { isRefused, shrinkTo: size => resize(Math.min(size, held)) })
    try {
      return await answer(request)
    } finally {
      resize(0)
    }
  }
}

/** A hook of the app, so that the answer has CORS headers and an access line: throws `unavailable` for a body without room. */
export function requireBodyRoom({ request }: { request: Request }) {
  if (reservations.get(request)?.isRefused)
    throw new AppError('unavailable', { cause: new Error('there is no room for another large body') })
}

/** A route begins to read a body and keeps at most this many bytes of it: they are all the room that it still needs. */
export const keepAtMost = (request: Request, bytes: number) => reservations.get(request)?.shrinkTo(bytes)

/** A chunked body has no length, and Bun accepts one that is sent twice: `5, 5`. Both count as the largest. */
const lengthOf = ({ headers }: Request) => Number(headers.get('content-length')) || largestBodyBytes
