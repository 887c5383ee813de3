import type { Answer, Client } from './harness.ts'

/** The two revisions of the protocol that the service speaks. */
export const revisions = ['2025-11-25', '2026-07-28'] as const
type Revision = (typeof revisions)[number]

/** What every message of 2026-07-28 says about its sender. */
const meta = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientInfo': { name: 'test', version: '1' },
  'io.modelcontextprotocol/clientCapabilities': {},
}

const accept = { accept: 'application/json, text/event-stream' }

/** Sends messages to `/mcp` as they are, without a library. */
export function speak(
  { url, request }: Client,
  { token }: { token: string },
  revision: Revision = '2025-11-25',
) {
  const post = (sent: object, headers: Record<string, string> = {}): Promise<Answer> =>
    request('POST', `${url}/mcp`, { token, ...sent, headers: { ...accept, ...headers } })

  function send(method: string, params: Record<string, unknown> = {}) {
    const message = { jsonrpc: '2.0', id: 1, method, params }
    if (revision === '2025-11-25') return post({ json: message }, { 'mcp-protocol-version': revision })
    return post(
      { json: { ...message, params: { ...params, _meta: meta } } },
      {
        'mcp-protocol-version': revision,
        'mcp-method': method,
        ...(typeof params.name === 'string' && { 'mcp-name': params.name }),
      },
    )
  }

  /** The result of a tool. */
  async function call(name: string, args: object = {}) {
    const { status, body } = await send('tools/call', { name, arguments: args })
    if (status !== 200 || !body.result) throw new Error(`${name} answered ${status} ${JSON.stringify(body)}`)
    const { structuredContent, content, isError = false } = body.result
    return { content: structuredContent, text: content[0].text as string, isError }
  }

  return { post, send, call }
}
