import type { GeneratedClient } from '../flow.ts'
import { createClient } from '../generated/hey-api/client/index.ts'
import * as api from '../generated/hey-api/sdk.gen.ts'

export default function connect(baseUrl: string): GeneratedClient {
  const client = createClient({ baseUrl })
  const as = (token: string) => ({ client, auth: token })
  const reply = ({ data, error, response }: { data?: unknown; error?: unknown; response?: Response }) => ({
    status: response!.status,
    headers: response!.headers,
    body: data ?? error,
  })
  return {
    register: async (email, password) => reply(await api.register({ client, body: { email, password } })),
    signIn: async (username, password) => reply(await api.login({ client, body: { username, password } })),
    refresh: async refresh_token => reply(await api.refresh({ client, body: { refresh_token } })),
    create: async (token, body) => reply(await api.createTask({ ...as(token), body })),
    read: async (token, id, ifNoneMatch) =>
      reply(
        await api.readTask({
          ...as(token),
          path: { id },
          ...(ifNoneMatch && { headers: { 'If-None-Match': ifNoneMatch } }),
        }),
      ),
    change: async (token, id, status, ifMatch) =>
      reply(
        await api.updateTask({
          ...as(token),
          path: { id },
          headers: { 'If-Match': ifMatch },
          body: { status },
        }),
      ),
    list: async (token, query) => reply(await api.listTasks({ ...as(token), query })),
    batch: async (token, operations) =>
      reply(await api.batchTasks({ ...as(token), body: { atomic: false, operations } })),
    remove: async (token, id) => reply(await api.deleteTask({ ...as(token), path: { id } })),
  }
}
