/** Clients of the service, typed by its OpenAPI document. */
import createClient, { type Client, type ClientOptions } from 'openapi-fetch'
import type { paths } from './schema.d.ts'

export type Api = Client<paths>

const serviceUrl = document.querySelector<HTMLMetaElement>('meta[name="todo-api"]')!.content
const callMsMax = 60_000

/** Calls fail after a minute: a connection may be dead without notice, and other tabs wait for what a call has locked. */
export function connect(options: ClientOptions = {}): Api {
  const client = createClient<paths>({ baseUrl: serviceUrl, ...options })
  client.use({
    onRequest({ request, options }) {
      if (options.parseAs === 'stream') return
      return new Request(request, {
        signal: AbortSignal.any([request.signal, AbortSignal.timeout(callMsMax)]),
      })
    },
  })
  return client
}
