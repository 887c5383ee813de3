import { expect } from 'bun:test'

/** An answer as a generated client returns it; every client keeps the status and the headers. */
export interface Reply<Body> {
  status: number
  headers: Headers
  /** The success or the error, as the client calls them. */
  body: Body | undefined
}

type Operation =
  | { op: 'create'; task: { title: string } }
  | { op: 'update'; id: string; version: number; task: { title: string } }
  | { op: 'delete'; id: string }

interface Task {
  id: string
  title: string
  status: string
}

/** The calls of the flow, made with the functions and types that a generator wrote. */
export interface GeneratedClient {
  register(email: string, password: string): Promise<Reply<unknown>>
  signIn(username: string, password: string): Promise<Reply<unknown>>
  refresh(refreshToken: string): Promise<Reply<unknown>>
  create(token: string, task: { title: string; due_at?: string; tags?: string[] }): Promise<Reply<unknown>>
  read(token: string, id: string, ifNoneMatch?: string): Promise<Reply<unknown>>
  change(token: string, id: string, status: 'completed', ifMatch: string): Promise<Reply<unknown>>
  list(
    token: string,
    query: { status: ('pending' | 'in_progress')[]; tag: string[]; limit: number; cursor?: string },
  ): Promise<Reply<unknown>>
  /** Each operation on its own. */
  batch(token: string, operations: Operation[]): Promise<Reply<unknown>>
  remove(token: string, id: string): Promise<Reply<unknown>>
}

/** What every user of the service does, on a service that allows few wrong passwords of an account. */
export async function flow(client: GeneratedClient) {
  const email = `${crypto.randomUUID()}@example.com`
  const password = 'correct horse battery'

  const invalid = await client.register(email, 'short')
  expect([invalid.status, codeOf(invalid)]).toEqual([422, 'validation_failed'])
  expect((await client.register(email, password)).status).toBe(201)

  const signedIn = await client.signIn(email, password)
  expect(signedIn.status).toBe(200)
  const refreshed = await client.refresh(tokensOf(signedIn).refresh_token)
  expect(refreshed.status).toBe(200)
  const { access_token: token, refresh_token } = tokensOf(refreshed)
  expect(refresh_token).not.toBe(tokensOf(signedIn).refresh_token)

  const ids: string[] = []
  for (const title of ['one', 'two', 'three']) {
    const created = await client.create(token, { title, due_at: '2099-01-31T18:00:00Z', tags: ['a, b'] })
    expect(created.status).toBe(201)
    ids.push((created.body as Task).id)
  }
  const [first, second, third] = ids as [string, string, string]

  const read = await client.read(token, first)
  expect([read.status, (read.body as Task).title]).toEqual([200, 'one'])
  const etag = read.headers.get('etag')!
  expect((await client.read(token, first, etag)).status).toBe(304)

  const changed = await client.change(token, first, 'completed', etag)
  expect([changed.status, (changed.body as Task).status]).toEqual([200, 'completed'])
  const late = await client.change(token, first, 'completed', etag)
  expect([late.status, codeOf(late)]).toEqual([412, 'precondition_failed'])

  const query = { status: ['pending' as const, 'in_progress' as const], tag: ['a, b', 'c'], limit: 1 }
  const page = await client.list(token, query)
  expect((page.body as Task[]).map(({ id }) => id)).toEqual([third])
  const cursor = new URL(page.headers.get('link')!.split(/[<>]/)[1]!, 'http://x').searchParams.get('cursor')!
  const next = await client.list(token, { ...query, cursor })
  expect((next.body as Task[]).map(({ id }) => id)).toEqual([second])
  expect(next.headers.get('link')).toBeNull()

  const batch = await client.batch(token, [
    { op: 'create', task: { title: 'four' } },
    { op: 'update', id: first, version: 1, task: { title: 'five' } },
    { op: 'delete', id: 'no id' },
  ])
  expect(batch.status).toBe(200)
  const { results } = batch.body as { results: { status: number; error?: { code: string } }[] }
  expect(results.map(({ status, error }) => [status, error?.code])).toEqual([
    [201, undefined],
    [412, 'precondition_failed'],
    [422, 'validation_failed'],
  ])

  expect((await client.remove(token, first)).status).toBe(204)
  expect(codeOf(await client.read(token, first))).toBe('task_not_found')

  let limited = await client.signIn(email, 'wrong password')
  for (let i = 0; i < 20 && limited.status === 401; i++)
    limited = await client.signIn(email, 'wrong password')
  expect([limited.status, codeOf(limited)]).toEqual([429, 'too_many_requests'])
  expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0)
}

const codeOf = ({ body }: Reply<unknown>) => (body as { code: string }).code
const tokensOf = ({ body }: Reply<unknown>) => body as { access_token: string; refresh_token: string }
