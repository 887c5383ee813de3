import createClient from 'openapi-fetch'
import type { GeneratedClient } from '../flow.ts'
import type { paths } from '../generated/openapi-typescript/schema.ts'

export default function connect(baseUrl: string): GeneratedClient {
  const api = createClient<paths>({ baseUrl })
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })
  const reply = ({ data, error, response }: { data?: unknown; error?: unknown; response: Response }) => ({
    status: response.status,
    headers: response.headers,
    body: data ?? error,
  })
  return {
    register: async (email, password) =>
      reply(await api.POST('/api/v1/auth/register', { body: { email, password } })),
    signIn: async (username, password) =>
      reply(await api.POST('/api/v1/auth/login', { body: { username, password }, headers: form })),
    refresh: async refresh_token =>
      reply(await api.POST('/api/v1/auth/refresh', { body: { refresh_token }, headers: form })),
    create: async (token, body) => reply(await api.POST('/api/v1/tasks', { body, ...bearer(token) })),
    read: async (token, id, ifNoneMatch) =>
      reply(
        await api.GET('/api/v1/tasks/{id}', {
          params: { path: { id }, ...(ifNoneMatch && { header: { 'If-None-Match': ifNoneMatch } }) },
          ...bearer(token),
        }),
      ),
    change: async (token, id, status, ifMatch) =>
      reply(
        await api.PATCH('/api/v1/tasks/{id}', {
          params: { path: { id }, header: { 'If-Match': ifMatch } },
          body: { status },
          ...bearer(token),
        }),
      ),
    list: async (token, query) =>
      reply(await api.GET('/api/v1/tasks', { params: { query }, ...bearer(token) })),
    batch: async (token, operations) =>
      reply(await api.POST('/api/v1/tasks/batch', { body: { atomic: false, operations }, ...bearer(token) })),
    remove: async (token, id) =>
      reply(await api.DELETE('/api/v1/tasks/{id}', { params: { path: { id } }, ...bearer(token) })),
  }
}
