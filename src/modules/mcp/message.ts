import { readBody } from '../../http/body.ts'
import { AppError } from '../../lib/errors.ts'

const bytesMax = 64 * 1024

/** The body of a request to `/mcp`, not yet known to be a message of JSON-RPC 2.0. */
export interface Message {
  id?: unknown
  method?: unknown
  params?: { name?: unknown }
}

/** Reads a message; if there is none, the answer that says so. Throws 400, 413 or 415 as every route does. */
export async function readMessage(request: Request): Promise<Message | Response> {
  try {
    const body = await readBody(request, bytesMax)
    if (body === undefined) return refuseMessage(400, -32700, 'Parse error: there is no body')
    if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body
    return refuseMessage(400, -32600, 'Invalid request: the body should be one message')
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'validation_failed') throw error
    const [problem] = error.detail
    const reason = typeof problem === 'object' ? problem.msg : error.message
    return refuseMessage(400, -32700, `Parse error: ${reason}`)
  }
}

/** An error of JSON-RPC (section 5.1 of its specification). */
export const refuseMessage = (status: number, code: number, message: string, id: unknown = null) =>
  Response.json({ jsonrpc: '2.0', id, error: { code, message } }, { status })
