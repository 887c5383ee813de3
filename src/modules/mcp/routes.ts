import { Elysia } from 'elysia'
import type { IsListed } from '../../http/cors.ts'
import { requestContext } from '../../http/request-log.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { AppError } from '../../lib/errors.ts'
import { readMessage } from './message.ts'
import type { Mcp } from './protocol.ts'
import type { Services } from './tools.ts'

interface Parts {
  services: Services
  authenticate: Authenticate
  isListed: IsListed
}

/** The tools for AI assistants, by the Model Context Protocol. Not in the OpenAPI document: it has its own discovery. */
export function mcpRoutes({ services, authenticate, isListed }: Parts) {
  let mcp: Mcp | undefined

  return (
    new Elysia({ detail: { hide: true } })
      .use(requestContext)
      // The protocol demands it, against pages that reach a service on the user's machine by a name of their own.
      .onTransform(({ request: { headers } }) => {
        const origin = headers.get('origin')
        if (origin !== null && !isListed(origin)) throw new AppError('origin_not_allowed')
      })
      .use(requireUser(authenticate, 'tasks:read'))
      .post('/mcp', async context => {
        const { request, user, requestId } = context
        const message = await readMessage(request)
        if (message instanceof Response) return message
        // Loaded with the first message, because most services never get one.
        mcp ??= (await import('./protocol.ts')).createMcp(services)
        context.operation = mcp.toolOf(message)
        return mcp.answer(request, message, user, requestId)
      })
  )
}
