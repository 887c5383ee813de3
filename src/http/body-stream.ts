import { AppError } from '../lib/errors.ts'
import { eventLoopTurns } from '../lib/event-loop-turns.ts'

/**
 * Reads a body of unknown length (chunked), counted while it arrives. Its chunks may be single bytes; Bun joins those that
 * wait. Throws `body_too_large`, at its end if that comes soon (`drop`): a client that still sends would not read the answer.
 */
export async function readStream(body: ReadableStream, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  const turn = eventLoopTurns()
  const arriving: Chunks = body.values()
  for await (const chunk of arriving) {
    length += chunk.length
    if (length > bytesMax) {
      await drop(arriving)
      throw new AppError('body_too_large')
    }
    chunks.push(chunk)
    await turn()
  }
  return Buffer.concat(chunks)
}

type Chunks = AsyncIterableIterator<Uint8Array>

/** Reads what no route has read of a body, and keeps nothing. Resolves to whether it has come to the end, see `drop`. */
export const dropBody = (body: ReadableStream): Promise<boolean> => drop(body.values())

/** Of what is dropped this is read at most: as much as the largest body may have, for this long, of this many requests at once. */
const droppedMax = { bytes: 1024 * 1024, ms: 2000, atOnce: 16 }
let dropping = 0

async function drop(arriving: Chunks): Promise<boolean> {
  if (dropping >= droppedMax.atOnce) return false
  dropping++
  try {
    return await Promise.race([
      isWithin(droppedMax.bytes, arriving),
      Bun.sleep(droppedMax.ms).then(() => false),
    ])
  } finally {
    dropping--
  }
}

async function isWithin(bytesMax: number, arriving: Chunks): Promise<boolean> {
  let length = 0
  const turn = eventLoopTurns()
  try {
    for await (const chunk of arriving) {
      length += chunk.length
      if (length > bytesMax) return false
      await turn()
    }
    return true
  } catch {
    // The client has hung up.
    return false
  }
}
