import {
  type CallToolResult,
  createMcpHandler,
  isLegacyRequest,
  type JSONRPCRequest,
  type Tool as ListedTool,
  ProtocolError,
  ProtocolErrorCode,
  type Result,
  Server,
  type ServerContext,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server'
import { version } from '../../../package.json'
import { errorFieldsOf } from '../../http/error-handler.ts'
import type { Caller } from '../../http/require-user.ts'
import { type AppError, findAppError } from '../../lib/errors.ts'
import { hintFor } from '../../lib/nearest.ts'
import { requireScope } from '../../lib/scope.ts'
import { type Message, refuseMessage } from './message.ts'
import { checkArguments, inArguments, toolSchema } from './tool-schema.ts'
import { createTools, effects, type Services, type Tool, type ToolAnswer } from './tools.ts'

const serverInfo = { name: 'todo-api', version }
const options = {
  capabilities: { tools: {} },
  instructions:
    'The to-do list of one user. Ids and versions of tasks come from find_tasks. Deleted tasks stay in the trash for 30 days.',
}

export type Mcp = ReturnType<typeof createMcp>

/** The library's, which reports parameters that do not fit as an internal error (-32603). */
class StrictServer extends Server {
  protected override _wrapHandler(method: string, handler: Handler): Handler {
    const wrapped = super._wrapHandler(method, handler)
    return async (request, context) => {
      try {
        return await wrapped(request, context)
      } catch (error) {
        throw new ProtocolError(ProtocolErrorCode.InvalidParams, (error as Error).message)
      }
    }
  }
}

type Handler = (request: JSONRPCRequest, context: ServerContext) => Promise<Result>

/** The Model Context Protocol without sessions: a server of the official library for each message. */
export function createMcp(services: Services) {
  const tools = createTools(services)
  const everyTool = [...tools].map(([name, tool]) => describe(name, tool))
  const readers = everyTool.filter(({ annotations }) => annotations?.readOnlyHint)

  return {
    /** The name of the tool that a message calls, for the log; empty if it calls none. */
    toolOf({ method, params }: Message): string {
      const name = params?.name
      return method === 'tools/call' && typeof name === 'string' && tools.has(name) ? name : ''
    },

    /** Answers one message. Throws what every route throws when the service or the token is at fault. */
    async answer(request: Request, message: Message, user: Caller, requestId: string): Promise<Response> {
      let failure: unknown
      const server = new StrictServer(serverInfo, options)
      const visible = user.scopes.has('tasks:write') ? everyTool : readers
      server.setRequestHandler('tools/list', () => ({ tools: visible }))
      server.setRequestHandler('tools/call', async ({ params: { name, arguments: input = {} } }) => {
        const tool = tools.get(name) ?? throwUnknownTool(name, [...tools.keys()])
        try {
          if (tool.effect !== 'none') requireScope(user.scopes, 'tasks:write')
          return await run(tool, input, user, requestId)
        } catch (error) {
          failure = error
          throw error
        }
      })
      const response = await exchange(server, request, message)
      // The library would send it as an error of the message, with status 200.
      if (failure) throw failure
      return response
    },
  }
}

const describe = (name: string, { description, arguments: input, result, effect }: Tool) =>
  ({
    name,
    description,
    inputSchema: toolSchema(input, { isInput: true }),
    outputSchema: toolSchema(result, { isInput: false }),
    annotations: effects[effect],
  }) as ListedTool

function throwUnknownTool(name: string, known: string[]): never {
  const message = `Unknown tool ${name.slice(0, 100)}: ${hintFor(name, known)}`
  throw new ProtocolError(ProtocolErrorCode.InvalidParams, message)
}

/** Has a server answer one message. */
async function exchange(server: Server, request: Request, message: Message): Promise<Response> {
  // The library would open a stream that stays empty.
  if (message.method === 'subscriptions/listen')
    return refuseMessage(404, -32601, 'Method not found', message.id)
  if (!(await isLegacyRequest(request, message)))
    return createMcpHandler(() => server, { legacy: 'reject' }).fetch(request, { parsedBody: message })
  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true })
  await server.connect(transport)
  // It demands that a client accepts streams, too, and sends none.
  const headers = new Headers(request.headers)
  headers.set('accept', 'application/json, text/event-stream')
  const sent = new Request(request.url, { method: 'POST', headers })
  return transport.handleRequest(sent, { parsedBody: message })
}

/** Runs a tool. What is wrong with the call is a result, from which an assistant learns; other failures are thrown. */
async function run(tool: Tool, input: unknown, user: Caller, requestId: string): Promise<CallToolResult> {
  try {
    checkArguments(tool.arguments, input)
    return toResult(await tool.run(user.id, input as never))
  } catch (error) {
    const failure = findAppError(error)
    if (!failure || !isAboutCall(failure)) throw error
    if (typeof failure.detail !== 'string') failure.detail = inArguments(failure.detail)
    return { isError: true, ...toResult({ json: JSON.stringify(errorFieldsOf(failure, requestId)) }) }
  }
}

const toResult = ({ json, text = json }: ToolAnswer): CallToolResult => ({
  content: [{ type: 'text', text }],
  structuredContent: JSON.parse(json),
})

/** Whether the assistant can correct the call. An account may be deleted during it. */
const isAboutCall = ({ status }: AppError) => status < 500 && status !== 401
