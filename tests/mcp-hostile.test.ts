import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { withEffort } from './support/effort.ts'
import { type Answer, onBothDatabases, startService, type User } from './support/harness.ts'
import { revisions, speak } from './support/mcp.ts'
import { expectError, send } from './support/wire.ts'

const readers = ['find_tasks', 'get_task', 'list_lists', 'task_stats']

const rpcError = (code: number, id: unknown = null) => ({
  jsonrpc: '2.0',
  id,
  error: { code, message: expect.any(String) },
})

onBothDatabases('POST /mcp', api => {
  const allKeys = { accept: 'application/json, text/event-stream' }

  describe('with a token that may only read', () => {
    async function tokenOf(user: User, scopes: string[]) {
      const { body } = await api.post('/auth/tokens', {
        token: user.token,
        json: { name: 'assistant', scopes, current_password: user.password },
      })
      return { token: body.token as string }
    }

    test('shows the tools that read, and runs no other', async () => {
      const ada = await api.user()
      const task = await api.task(ada)
      for (const revision of revisions) {
        const { send, call } = speak(api, await tokenOf(ada, ['tasks:read']), revision)
        const { body } = await send('tools/list')
        expect(body.result.tools.map(({ name }: any) => name).sort()).toEqual(readers)
        expect((await call('get_task', { id: task.id })).content).toEqual(task)

        for (const name of ['add_tasks', 'update_task', 'complete_task', 'delete_task', 'restore_task']) {
          const { status, headers, body } = await send('tools/call', { name, arguments: { id: task.id } })
          expect([status, body.code]).toEqual([403, 'insufficient_scope'])
          expect(headers.get('www-authenticate')).toBe(
            'Bearer error="insufficient_scope", scope="tasks:write"',
          )
        }
      }
      expect((await api.get(`/tasks/${task.id}`, { token: ada.token })).body).toEqual(task)
    })

    test('and with one that may write runs all, and with one for the account none', async () => {
      const ada = await api.user()
      const writer = speak(api, await tokenOf(ada, ['tasks:write']))
      expect((await writer.call('add_tasks', { tasks: [{ title: 'x' }] })).content.tasks).toHaveLength(1)

      const stranger = speak(api, await tokenOf(ada, ['account:read']))
      const { status, body } = await stranger.send('tools/list')
      expect([status, body.code]).toEqual([403, 'insufficient_scope'])
    })
  })

  test('without a token is 401 before anything is read, and names no authorization server', async () => {
    for (const token of [undefined, 'nonsense']) {
      for (const raw of ['', '[', '[]', 'x'.repeat(70_000)]) {
        const answer = await api.post(`${api.url}/mcp`, {
          token,
          raw,
          headers: { ...allKeys, 'content-type': 'application/json' },
        })
        expectError(answer, 401, token ? 'invalid_token' : 'not_authenticated')
        expect(answer.headers.get('www-authenticate')).toBe('Bearer')
      }
    }
    for (const path of [
      'oauth-protected-resource',
      'oauth-protected-resource/mcp',
      'oauth-authorization-server',
    ])
      expect((await api.get(`${api.url}/.well-known/${path}`)).status).toBe(404)
  })

  test('is the only method', async () => {
    const { token } = await api.user()
    for (const method of ['GET', 'DELETE', 'PUT', 'PATCH', 'HEAD']) {
      const { status, headers } = await api.request(method, `${api.url}/mcp`, { token, headers: allKeys })
      expect([method, status, headers.get('allow')]).toEqual([method, 405, 'POST'])
    }
  })

  test('takes 64 KiB and no byte more, announced or not', async () => {
    const { token } = await api.user()
    const message = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' })
    const headers = [
      `Authorization: Bearer ${token}`,
      `Accept: ${allKeys.accept}`,
      'Content-Type: application/json',
    ]
    for (const chunkBytes of [undefined, 10_000]) {
      const post = (bytes: number) =>
        send(api.url, {
          line: 'POST /mcp',
          headers,
          body: message.padEnd(bytes),
          ...(chunkBytes && { chunkBytes }),
        })
      expect((await post(65_536)).body).toEqual({ jsonrpc: '2.0', id: 1, result: {} })
      expectError(await post(65_537), 413, 'body_too_large')
    }
  })

  test('answers what is no message with the error of JSON-RPC', async () => {
    const { post } = speak(api, await api.user())
    const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }
    const raw = (body: string | Uint8Array<ArrayBuffer>) =>
      post({ raw: body }, { 'content-type': 'application/json' })
    const refused: [Promise<Answer>, status: number, code: number, id?: unknown][] = [
      [raw(''), 400, -32700],
      [raw('{'), 400, -32700],
      [raw('{"jsonrpc":"2.0","id":1,"method":"ping"'), 400, -32700],
      [raw(Uint8Array.of(0x7b, 0xff, 0x7d)), 400, -32700],
      [raw('['.repeat(30_000)), 400, -32700],
      [raw('null'), 400, -32600],
      [raw('5'), 400, -32600],
      [raw('"ping"'), 400, -32600],
      [post({ json: [] }), 400, -32600],
      [post({ json: [ping] }), 400, -32600],
      [post({ json: [ping, ping] }), 400, -32600],
      [post({ json: {} }), 400, -32600],
      [post({ json: { ...ping, jsonrpc: '1.0' } }), 400, -32600, 1],
      [post({ json: { ...ping, id: null } }), 400, -32600],
      [post({ json: { ...ping, id: {} } }), 400, -32600],
      [post({ json: { ...ping, method: 5 } }), 400, -32600],
      [post({ json: { ...ping, params: [] } }), 400, -32600, 1],
      [post({ json: { ...ping, method: 'unknown' } }), 200, -32601, 1],
      [post({ json: { ...ping, method: 'subscriptions/listen' } }), 404, -32601, 1],
      [post({ json: { ...ping, method: 'tools/call' } }), 200, -32602, 1],
      [post({ json: { ...ping, method: 'tools/call', params: { name: 5 } } }), 200, -32602, 1],
      [post({ json: { ...ping, method: 'tools/call', params: { name: 'find_task' } } }), 200, -32602, 1],
      [
        post({ json: { ...ping, method: 'tools/call', params: { name: 'get_task', arguments: 'x' } } }),
        200,
        -32602,
        1,
      ],
      [post({ json: { ...ping, method: 'initialize', params: {} } }), 200, -32602, 1],
    ]
    for (const [answer, status, code, id = null] of refused) {
      const { status: found, body } = await answer
      expect([found, body]).toEqual([status, rpcError(code, id)])
    }
    const messageOf = async (sent: string) => (await raw(sent)).body.error.message
    expect(await messageOf('{')).toBe('Parse error: JSON decode error')
    expect(await messageOf('['.repeat(17))).toBe('Parse error: JSON is nested deeper than 16 levels')
    expect(await messageOf('')).toBe('Parse error: there is no body')
    expect(await messageOf('[]')).toBe('Invalid request: the body should be one message')
    const call = { ...ping, method: 'tools/call', params: { name: 'find_task' } }
    expect(await messageOf(JSON.stringify(call))).toBe(
      "Unknown tool find_task: the nearest known one is 'find_tasks'",
    )
    expect((await post({ json: { ...ping, id: 'a' } })).body).toEqual({ jsonrpc: '2.0', id: 'a', result: {} })
    const name = 'x'.repeat(10_000)
    const unknown = await post({ json: { ...ping, method: 'tools/call', params: { name } } })
    expect(unknown.body.error.message).toMatch(/^Unknown tool x{100}: known are find_tasks, [a-z_, ]{1,110}$/)
    expectError(await post({ json: ping }, { 'content-type': 'text/plain' }), 415, 'unsupported_media_type')
  })

  test('sends JSON, whatever the client says that it accepts', async () => {
    const { post } = speak(api, await api.user())
    for (const accept of ['*/*', 'application/json', 'text/event-stream']) {
      const { status, headers } = await post({ json: { jsonrpc: '2.0', id: 1, method: 'ping' } }, { accept })
      expect([accept, status, headers.get('content-type')]).toEqual([accept, 200, 'application/json'])
    }
  })

  test('in 2026-07-28 answers a message that does not say what it must', async () => {
    const modern = speak(api, await api.user(), '2026-07-28')
    const listing = { jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }
    const envelope = (await modern.send('tools/list')).body.result._meta
    const headers = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/list' }

    expect(envelope).toMatchObject({ 'io.modelcontextprotocol/serverInfo': { name: 'todo-api' } })
    const answer = await modern.post({ json: listing }, headers)
    expect([answer.status, answer.body.error.code]).toEqual([400, -32602])
    expect((await modern.send('unknown')).body).toEqual(rpcError(-32601, 1))
    expect((await modern.send('subscriptions/listen')).body).toEqual(rpcError(-32601, 1))
  })

  test('survives any message and any arguments', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const methods = fc.constantFrom(
      'tools/call',
      'tools/list',
      'initialize',
      'ping',
      'server/discover',
      'logging/setLevel',
      'notifications/cancelled',
    )
    const message = fc.record(
      {
        jsonrpc: fc.constantFrom('2.0', '1.0'),
        id: fc.oneof(fc.integer(), fc.string(), fc.jsonValue()),
        method: fc.oneof(methods, fc.string()),
        params: fc.jsonValue(),
      },
      { requiredKeys: [] },
    )
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.constantFrom(task.id, '\0', '\ud800', 1e300, -1, 2 ** 53, [], ['\0'], 'infinity'),
    )
    const name = fc.constantFrom(...readers, 'add_tasks', 'update_task', 'complete_task', 'restore_task')
    const names = [
      'id',
      'version',
      'title',
      'tasks',
      'key',
      'limit',
      'cursor',
      'sort',
      'q',
      'tz',
      'due_at',
      'due_before',
      'tag',
      'tags',
      '__proto__',
    ]
    const input = fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 3 })
    const runs = { numRuns: withEffort(100) }

    const { post } = speak(api, ada)
    await fc.assert(
      fc.asyncProperty(message, async json => expect((await post({ json })).status).toBeLessThan(500)),
      runs,
    )
    for (const revision of revisions) {
      const { send } = speak(api, ada, revision)
      await fc.assert(
        fc.asyncProperty(name, input, async (name, args) => {
          const { status, body } = await send('tools/call', { name, arguments: args })
          expect([status, body.error]).toEqual([200, undefined])
        }),
        runs,
      )
    }
  })

  test('refuses pages that are not listed, also those of its own name', async () => {
    const ada = await api.user()
    const { post } = speak(api, ada)
    const from = (origin: string) => post({ json: { jsonrpc: '2.0', id: 1, method: 'ping' } }, { origin })

    for (const origin of ['https://evil.example', api.url, 'null', 'http://localhost:3000.evil.example', ''])
      expectError(await from(origin), 403, 'origin_not_allowed', 'Origin not allowed')
    // Also before they sign in.
    const withoutToken = await speak(api, { token: '' }).post(
      { json: {} },
      { origin: 'https://evil.example' },
    )
    expectError(withoutToken, 403, 'origin_not_allowed')
    const { status, headers } = await from('http://localhost:3000')
    expect([status, headers.get('access-control-allow-origin')]).toEqual([200, 'http://localhost:3000'])
  })

  test('sends the headers that every answer has', async () => {
    const { headers } = await speak(api, await api.user()).send('tools/list')
    const plain = (await api.get('/health')).headers
    const names = [...plain.keys()].filter(name => !['content-length', 'date'].includes(name))
    expect(names.filter(name => !headers.has(name))).toEqual([])
    expect(headers.get('content-type')).toBe('application/json')
  })
})

test('in development, every page of this machine may call', async () => {
  const api = await startService('embedded', {
    ENVIRONMENT: 'development',
    BCRYPT_COST: '12',
    SECRET_KEY: '',
  })
  try {
    const { post } = speak(api, await api.user())
    const from = (origin: string) => post({ json: { jsonrpc: '2.0', id: 1, method: 'ping' } }, { origin })
    expect((await from('http://localhost:6274')).status).toBe(200)
    expect((await from('http://192.168.1.2:6274')).status).toBe(403)
  } finally {
    await api.stop()
  }
})
