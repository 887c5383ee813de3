import { atMost } from '../lib/at-most.ts'
import { AppError } from '../lib/errors.ts'
import { eventLoopTurns } from '../lib/event-loop-turns.ts'
import { largestBodyBytes } from './body-sizes.ts'

/**
 * Reads a body of unknown length (chunked), counted while it arrives. Throws `body_too_large`, at its end if that comes soon
 * (`drop`): a client that still sends would not read the answer.
 */
export async function readStream(body: ReadableStream, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  const arriving: Chunks = body.values()
  if (await readUpTo(bytesMax, arriving, chunk => chunks.push(chunk))) return Buffer.concat(chunks)
  await drop(arriving)
  throw new AppError('body_too_large')
}

/** Reads what no route has read of a body, and keeps nothing. Resolves to whether it has come to the end, see `drop`. */
export const dropBody = (body: ReadableStream): Promise<boolean> => drop(body.values())

/** Of what is dropped this is read at most: as much as the largest body may have, for this long, of this many requests at once. */
const droppedMax = { bytes: largestBodyBytes, ms: 2000, atOnce: 16 }
let dropping = 0

async function drop(arriving: Chunks): Promise<boolean> {
  if (dropping >= droppedMax.atOnce) return false
  dropping++
  // It fails when the client hangs up.
  const reading = readUpTo(droppedMax.bytes, arriving, () => {}).catch(() => false)
  return atMost(droppedMax.ms, reading, () => false).finally(() => dropping--)
}

type Chunks = AsyncIterator<Uint8Array>

/**
 * Resolves to whether the end has come within this many bytes; if not, the rest can still be read. Chunks may be single bytes;
 * Bun joins those that wait.
 */
async function readUpTo(bytesMax: number, arriving: Chunks, take: (chunk: Uint8Array) => void) {
  const turn = eventLoopTurns()
  let length = 0
  while (true) {
    const { done, value } = await arriving.next()
    if (done) return true
    length += value.length
    if (length > bytesMax) return false
    take(value)
    await turn()
  }
}
