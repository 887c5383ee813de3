import { Elysia } from 'elysia'
import { AppError, invalid } from '../lib/errors.ts'
import { keepAtMost } from './body-room.ts'
import { bodyBytesMax } from './body-sizes.ts'
import { readStream } from './body-stream.ts'
import { errors } from './error-responses.ts'
import { checkEncoding } from './query.ts'
import { prefersStrict, repeatedNames } from './unknown-names.ts'

const depthMax = 16
/** Five times what the largest batch needs. For 200,000 values Elysia spends 60 ms on listing what is wrong. */
const valuesMax = 20_000

const json = 'application/json'
const form = 'application/x-www-form-urlencoded'

interface BodyOptions {
  bytesMax?: number
  /** Whether forms are accepted beside JSON. */
  forms?: boolean
}

/**
 * Reads the body of the routes after it, which thereby declare 413, 415 and 422. It replaces Elysia's parser (switched
 * off in `error-handler.ts`; docs/decisions/0013-elysia.md), which runs before the caller is known, accepts 128 MB, and needs a
 * second for deeply nested JSON. This one runs in the order of registration: after `requireUser`, so that without a
 * token the answer is 401, whatever the body.
 */
export const body = ({ bytesMax = bodyBytesMax, forms = false }: BodyOptions = {}) =>
  new Elysia({ name: 'body', seed: { bytesMax, forms } })
    .decorate({ rawBody: undefined as unknown })
    .guard({
      as: 'scoped',
      response: errors('body_too_large', unsupportedType(forms), 'validation_failed'),
    })
    .onTransform({ as: 'scoped' }, async context => {
      const { request } = context
      if (prefersStrict(request)) context.set.headers['preference-applied'] = 'handling=strict'
      // Twice: Elysia removes unknown fields from `body` before it validates the rest.
      context.rawBody = await readBody(request, bytesMax, forms)
      context.body = context.rawBody
      // Elysia would accept a list or a number as an object without fields.
      if (!mayBeObject(context.rawBody))
        throw invalid({ loc: ['body'], msg: 'Input should be an object', type: 'object_type' })
    })

/** The parsed body, `undefined` when there is none. Throws 400 (incomplete), 413, 415 or 422. */
export async function readBody(request: Request, bytesMax: number, forms = false): Promise<unknown> {
  const bytes = await readBytes(request, bytesMax)
  if (bytes.length === 0) return undefined
  if ((request.headers.get('content-encoding') ?? 'identity').toLowerCase() !== 'identity') {
    throw unsupported('Send the body without Content-Encoding')
  }
  const [type = ''] = (request.headers.get('content-type') ?? json).toLowerCase().split(/[;\s]/)
  if (type === json) return readJson(decode(bytes))
  if (!forms || type !== form) throw new AppError(unsupportedType(forms))
  const text = decode(bytes)
  // What `curl -d` says of every body. Read as a form, the JSON would be the name of a field, with any password in it.
  if (/^\s*[{[]/.test(text)) {
    throw unsupported(`The body is JSON but sent as ${form}: send the header Content-Type: ${json}`)
  }
  return readForm(text)
}

const unsupportedType = (forms: boolean) => (forms ? 'neither_form_nor_json' : 'unsupported_media_type')

const unsupported = (detail: string) => new AppError('unsupported_media_type', { detail })

async function readBytes(request: Request, bytesMax: number): Promise<Uint8Array> {
  keepAtMost(request, bytesMax)
  const announced = Number(request.headers.get('content-length') ?? Number.NaN)
  if (announced > bytesMax) throw new AppError('body_too_large')
  try {
    if (announced >= 0) return await request.bytes()
    return request.body ? await readStream(request.body, bytesMax) : new Uint8Array()
  } catch (error) {
    // The client has hung up, or broke the HTTP framing.
    throw error instanceof AppError ? error : new AppError('bad_request', { cause: error })
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decode(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw invalid({ loc: ['body'], msg: 'Body is not valid UTF-8', type: 'encoding_invalid' })
  }
}

/** Fields of a form that are wrong, not missing, if they are empty: every wrong one has the same answer. */
const credentials = ['username', 'password', 'token']

function readForm(text: string): unknown {
  checkEncoding('body', text)
  const fields = new URLSearchParams(text)
  // RFC 6749, 3.2: a parameter must not come twice, and one without a value counts as omitted.
  const detail = repeatedNames([...fields.keys()], ['body'])
  if (detail.length > 0) throw new AppError('validation_failed', { detail })
  return Object.fromEntries([...fields].filter(([name, value]) => value !== '' || credentials.includes(name)))
}

function readJson(text: string): unknown {
  // Before it is parsed: to walk a value that is 30,000 levels deep takes a second.
  const { depth, values } = measure(text)
  if (depth > depthMax) {
    throw invalid({
      loc: ['body'],
      msg: `JSON is nested deeper than ${depthMax} levels`,
      type: 'json_too_deep',
    })
  }
  if (values > valuesMax) throw new AppError('body_too_large')
  try {
    return JSON.parse(text)
  } catch {
    throw invalid({ loc: ['body'], msg: 'JSON decode error', type: 'json_invalid' })
  }
}

/** The depth of brackets and an upper bound for the number of values, outside of strings. */
function measure(text: string) {
  let depth = 0
  let values = 1
  let level = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    if (inString) {
      if (char === 0x5c) i++
      else if (char === 0x22) inString = false
    } else if (char === 0x22) inString = true
    else if (char === 0x2c) values++
    else if (char === 0x7b || char === 0x5b) {
      values++
      depth = Math.max(depth, ++level)
    } else if (char === 0x7d || char === 0x5d) level--
  }
  return { depth, values }
}

/** An absent body or `null` passes: the route's schema decides about it. */
function mayBeObject(value: unknown): boolean {
  return value === undefined || (typeof value === 'object' && !Array.isArray(value))
}
