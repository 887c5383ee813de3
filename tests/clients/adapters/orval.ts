import type { GeneratedClient } from '../flow.ts'
import * as api from '../generated/orval/client.ts'
import * as schemas from '../generated/orval/zod.ts'

/** orval writes the address of the service into the client. */
export default function connect(): GeneratedClient {
  async function checked<Answer extends { data: unknown; status: number; headers: Headers }>(
    answer: Answer,
    schema: { parse(data: unknown): unknown },
  ) {
    // What the service sends has to pass what zod made of its schema.
    if (answer.status < 300) schema.parse(answer.data)
    return { status: answer.status, headers: answer.headers, body: answer.data as unknown }
  }
  const bearer = (token: string, more: Record<string, string> = {}) => ({
    headers: { authorization: `Bearer ${token}`, ...more },
  })
  return {
    register: async (email, password) =>
      checked(await api.register({ email, password }), schemas.RegisterResponse),
    signIn: async (username, password) =>
      checked(await api.login({ username, password }), schemas.LoginResponse),
    refresh: async refresh_token => checked(await api.refresh({ refresh_token }), schemas.RefreshResponse),
    create: async (token, task) =>
      checked(
        await api.createTask(schemas.CreateTaskBody.parse(task), bearer(token)),
        schemas.CreateTaskResponse,
      ),
    read: async (token, id, ifNoneMatch) =>
      checked(
        await api.readTask(id, bearer(token, ifNoneMatch ? { 'If-None-Match': ifNoneMatch } : {})),
        schemas.ReadTaskResponse,
      ),
    change: async (token, id, status, ifMatch) =>
      checked(
        await api.updateTask(id, { status }, bearer(token, { 'If-Match': ifMatch })),
        schemas.UpdateTaskResponse,
      ),
    list: async (token, query) =>
      checked(await api.listTasks(query, bearer(token)), schemas.ListTasksResponse),
    batch: async (token, operations) =>
      checked(await api.batchTasks({ atomic: false, operations }, bearer(token)), schemas.BatchTasksResponse),
    remove: async (token, id) =>
      api.deleteTask(id, {}, bearer(token)).then(({ data, ...rest }) => ({ ...rest, body: data })),
  }
}
