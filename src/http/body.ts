import { Elysia } from 'elysia'
import { AppError, type Problem } from '../errors.ts'

/** The most that a request's body may weigh, in bytes. */
export const bodyBytesMax = 32 * 1024
const depthMax = 16

type Reader = (text: string) => unknown
const readers: Record<string, Reader> = {
  'application/json': readJson,
  'application/x-www-form-urlencoded': text => Object.fromEntries(new URLSearchParams(text)),
}

/**
 * Reads the body of the routes that come after it, in the place of Elysia's parser. That one answers before anybody
 * was asked who they are, takes 128 MB, and needs a second for a deeply nested text. This one runs in the order of
 * registration: after `requireUser`, so that a stranger gets 401 whatever he sends.
 */
export const body = (bytesMax = bodyBytesMax) =>
  new Elysia({ name: 'body', seed: bytesMax })
    // Whatever is not `undefined` tells Elysia that the body has been dealt with.
    .onParse({ as: 'scoped' }, () => null)
    .onTransform({ as: 'scoped' }, async context => {
      const { request } = context
      if (request.method === 'GET' || request.method === 'HEAD') return
      context.body = await readBody(request, bytesMax)
    })

/** The body of a request, `undefined` when there is none. Throws 413, 415 or 422. */
export async function readBody(request: Request, bytesMax: number): Promise<unknown> {
  const bytes = await readBytes(request, bytesMax)
  if (bytes.length === 0) return undefined
  const [type = ''] = (request.headers.get('content-type') ?? 'application/json').toLowerCase().split(/[;\s]/)
  const reader = readers[type]
  if (!reader) throw new AppError('unsupported_media_type')
  return reader(decode(bytes))
}

async function readBytes(request: Request, bytesMax: number): Promise<Uint8Array> {
  const announced = Number(request.headers.get('content-length') ?? Number.NaN)
  if (announced > bytesMax) throw new AppError('body_too_large')
  if (announced >= 0) return request.bytes()
  if (!request.body) return new Uint8Array()
  // Of unknown length (chunked): count while it comes, and stop where it is too much.
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>) {
    length += chunk.length
    if (length > bytesMax) throw new AppError('body_too_large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw invalid({ loc: ['body'], msg: 'Body is not valid UTF-8', type: 'encoding_invalid' })
  }
}

function readJson(text: string): unknown {
  // Before it is parsed: whatever looks at a value 30,000 levels deep takes a second for it.
  if (depth(text) > depthMax) {
    throw invalid({
      loc: ['body'],
      msg: `JSON is nested deeper than ${depthMax} levels`,
      type: 'json_too_deep',
    })
  }
  try {
    return JSON.parse(text)
  } catch {
    throw invalid({ loc: ['body'], msg: 'JSON decode error', type: 'json_invalid' })
  }
}

/** How deep brackets are nested outside of strings. */
function depth(text: string): number {
  let deepest = 0
  let level = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    if (inString) {
      if (char === 0x5c) i++
      else if (char === 0x22) inString = false
    } else if (char === 0x22) inString = true
    else if (char === 0x7b || char === 0x5b) deepest = Math.max(deepest, ++level)
    else if (char === 0x7d || char === 0x5d) level--
  }
  return deepest
}

const invalid = (problem: Problem) => new AppError('validation_failed', { detail: [problem] })
