import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { version } from '../package.json'
import { listsQuery } from '../src/modules/lists/model.ts'
import { listQuery, taskCreate, taskUpdate } from '../src/modules/tasks/model.ts'
import { onBothDatabases, startService } from './support/harness.ts'
import { revisions, speak } from './support/mcp.ts'
import { until } from './support/until.ts'
import { expectError } from './support/wire.ts'

const readers = ['find_tasks', 'get_task', 'list_lists', 'task_stats']
const writers = ['add_tasks', 'complete_task', 'delete_task', 'restore_task', 'update_task']
const allTools = [...readers, ...writers].sort()

const metricsToken = 'metrics-token-0123'

const without = (object: object, ...names: string[]) =>
  Object.keys(object).filter(name => !names.includes(name))

onBothDatabases(
  'an assistant',
  api => {
    test('is offered the same tools in both revisions, in less than 6,000 bytes', async () => {
      const ada = await api.user()
      for (const revision of revisions) {
        const { status, body } = await speak(api, ada, revision).send('tools/list')

        expect(status).toBe(200)
        expect(body.result.tools.map((tool: { name: string }) => tool.name).sort()).toEqual(allTools)
        expect(Buffer.byteLength(JSON.stringify(body.result))).toBeLessThan(6000)
      }
    })

    test('begins with a handshake in 2025-11-25, and with a discovery in 2026-07-28', async () => {
      const ada = await api.user()
      const clientInfo = { name: 'test', version: '1' }
      const handshake = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo }
      const { headers, body } = await speak(api, ada).send('initialize', handshake)
      const discovered = await speak(api, ada, '2026-07-28').send('server/discover')

      expect(body.result).toMatchObject({
        protocolVersion: '2025-11-25',
        capabilities: { tools: {} },
        serverInfo: { name: 'todo-api', version },
        instructions: expect.stringContaining('Ids and versions of tasks come from find_tasks'),
      })
      // The tools never change, so a client has nothing to subscribe to.
      expect(body.result.capabilities).toEqual({ tools: {} })
      expect(headers.get('mcp-session-id')).toBeNull()
      const older = await speak(api, ada).send('initialize', { ...handshake, protocolVersion: '2024-11-05' })
      expect(older.body.result.protocolVersion).toBe('2024-11-05')
      expect(discovered.body.result).toMatchObject({
        supportedVersions: ['2026-07-28'],
        capabilities: { tools: {} },
      })
    })

    test('learns which tools only read, and which destroy', async () => {
      const { body } = await speak(api, await api.user()).send('tools/list')
      const named = (hint: string) =>
        body.result.tools
          .filter(({ annotations }: any) => annotations[hint])
          .map(({ name }: any) => name)
          .sort()

      expect(named('readOnlyHint')).toEqual(readers)
      // One overwrites a text, the other lets a task disappear.
      expect(named('destructiveHint')).toEqual(['delete_task', 'update_task'])
      expect(named('idempotentHint')).toEqual(
        without(Object.fromEntries(writers.map(w => [w, 0])), 'add_tasks'),
      )
    })

    test('has the arguments that the API has', async () => {
      const { body } = await speak(api, await api.user()).send('tools/list')
      const propertiesOf = (name: string) =>
        body.result.tools.find((tool: any) => tool.name === name).inputSchema.properties

      expect(Object.keys(propertiesOf('find_tasks'))).toEqual(
        without(listQuery.properties, 'offset', 'total'),
      )
      expect(Object.keys(propertiesOf('add_tasks').tasks.items.properties)).toEqual(
        without(taskCreate.properties, 'id'),
      )
      expect(Object.keys(propertiesOf('list_lists'))).toEqual(
        without(listsQuery.properties, 'offset', 'total'),
      )
      const choices = ['pending', 'in_progress', 'completed']
      expect(propertiesOf('find_tasks').status).toMatchObject({ type: 'array', items: { enum: choices } })
      expect(propertiesOf('update_task')).toMatchObject({
        status: { enum: choices },
        priority: { type: 'integer', minimum: 0, maximum: 4 },
        due_at: { type: ['string', 'null'], format: 'date-time' },
      })
      expect(Object.keys(propertiesOf('update_task'))).toEqual([
        'id',
        'version',
        ...without(taskUpdate.properties),
      ])
    })

    for (const revision of revisions) {
      test(`adds, finds, changes, completes, deletes and restores, as the API does (${revision})`, async () => {
        const ada = await api.user()
        const { call } = speak(api, ada, revision)
        const asTheApi = async (id: string) => (await api.get(`/tasks/${id}`, { token: ada.token })).body
        const due_at = '2030-01-31T18:00:00+01:00'

        const added = await call('add_tasks', {
          tasks: [{ title: 'Buy milk', tags: ['home'], due_at, priority: 4 }, { title: 'Call Bob' }],
        })
        const [milk, bob] = added.content.tasks
        expect(added.content.tasks).toEqual([await asTheApi(milk.id), await asTheApi(bob.id)])
        expect(milk).toMatchObject({ tags: ['home'], due_at: '2030-01-31T17:00:00.000000Z', priority: 4 })

        expect((await call('find_tasks', { q: 'mil', status: ['pending'], tag: ['home'] })).content).toEqual({
          tasks: [milk],
          cursor: null,
        })
        expect((await call('get_task', { id: milk.id })).content).toEqual(milk)

        const { id } = milk
        const changed = await call('update_task', { id, version: milk.version, title: 'Milk', due_at: null })
        expect(changed.content).toMatchObject({ title: 'Milk', due_at: null, tags: ['home'] })
        expect((await call('complete_task', { id })).content).toMatchObject({ status: 'completed' })
        expect((await call('delete_task', { id })).content).toEqual({ deleted: [id] })
        expect((await call('task_stats')).content).toMatchObject({ total: 1, pending: 1, trash: 1 })
        const { version } = changed.content
        const stale = await call('restore_task', { id, version })
        expect([stale.isError, stale.content.code]).toEqual([true, 'precondition_failed'])
        const restored = await call('restore_task', { id })
        expect(restored.content).toEqual(await asTheApi(id))
        expect(restored).toEqual({
          content: restored.content,
          text: JSON.stringify(restored.content),
          isError: false,
        })
      })
    }

    test('puts tasks into lists and below others, and finds them there', async () => {
      const ada = await api.user()
      const { call } = speak(api, ada)
      const { body: list } = await api.post('/lists', { token: ada.token, json: { name: 'Groceries' } })
      const added = await call('add_tasks', {
        tasks: [{ title: 'Buy milk', list_id: list.id }, { title: 'Call Bob' }],
      })
      const [milk, bob] = added.content.tasks
      const child = (await call('add_tasks', { tasks: [{ title: 'Skimmed', parent_id: milk.id }] })).content
        .tasks[0]

      expect((await call('list_lists')).content).toEqual({ lists: [list], cursor: null })
      const counted = (await call('list_lists', { counts: true, limit: 1 })).content
      expect(counted.lists).toEqual([{ ...list, open: 1, total: 1 }])
      const { body: second } = await api.post('/lists', { token: ada.token, json: { name: 'Work' } })
      const { cursor } = (await call('list_lists', { limit: 1 })).content
      expect((await call('list_lists', { cursor })).content).toEqual({ lists: [second], cursor: null })
      expect((await call('find_tasks', { list: [list.id] })).content.tasks).toEqual([milk])
      expect((await call('find_tasks', { list: ['none'] })).content.tasks).toEqual([child, bob])
      expect((await call('find_tasks', { parent: [milk.id] })).content.tasks).toEqual([child])
      expect((await call('task_stats', { list: [list.id] })).content.total).toBe(1)
      const { deleted } = (await call('delete_task', { id: milk.id.toUpperCase() })).content
      expect(deleted.sort()).toEqual([milk.id, child.id].sort())
      await call('restore_task', { id: milk.id })
      const elsewhere = await call('task_stats', { tz: 'Mars/Olympus_Mons' })
      expect([elsewhere.isError, elsewhere.content.detail[0].loc.at(-1)]).toEqual([true, 'tz'])
      const unknown = await call('update_task', { id: bob.id, list_id: Bun.randomUUIDv7() })
      expect([unknown.isError, unknown.content.code]).toEqual([true, 'list_not_found'])
      const allOrNone = await call('add_tasks', {
        tasks: [{ title: 'Call Eve' }, { title: 'Lost', list_id: Bun.randomUUIDv7() }],
      })
      expect([allOrNone.isError, allOrNone.content.code]).toEqual([true, 'list_not_found'])
      expect((await call('task_stats')).content.total).toBe(3)
    })

    test('learns by the names of its arguments, and which of several tasks it is, why a call fails', async () => {
      const { call } = speak(api, await api.user())
      const list_id = Bun.randomUUIDv7()
      const tasks = [{ title: 'Buy milk' }, { title: 'Lost', list_id }]
      const key = 'monday'
      const [first, others] = [[{ title: 'Call Bob' }], [{ title: 'Call Bob' }, { title: 'Call Eve' }]]
      const reused = [{ title: 'Call Bob' }, { title: 'Call Ann' }]
      const id = (await call('add_tasks', { tasks: first })).content.tasks[0].id
      await call('add_tasks', { tasks: others, key })

      for (const [name, args, loc, index] of [
        ['task_stats', { tz: 'Mars' }, ['arguments', 'tz'], undefined],
        ['find_tasks', { cursor: 'nonsense' }, ['arguments', 'cursor'], undefined],
        ['list_lists', { cursor: 'nonsense' }, ['arguments', 'cursor'], undefined],
        ['update_task', { id, list_id }, ['arguments', 'list_id'], undefined],
        ['add_tasks', { tasks }, ['arguments', 'tasks', 1, 'list_id'], 1],
        ['add_tasks', { tasks, key: 'tuesday' }, ['arguments', 'tasks', 1, 'list_id'], 1],
        ['add_tasks', { tasks: reused, key }, ['arguments', 'key'], 1],
      ] as const) {
        const { isError, content } = await call(name, args)
        expect({ name, isError, loc: content.detail[0].loc, index: content.index }).toEqual({
          name,
          isError: true,
          loc,
          index,
        })
      }
    })

    test('gets results and errors that fit the schemas of the tools', async () => {
      const { send, call } = speak(api, await api.user())
      const { tools } = (await send('tools/list')).body.result
      const [task] = (await call('add_tasks', { tasks: [{ title: 'Buy milk' }] })).content.tasks
      const ajv = addFormats(new Ajv2020({ strictSchema: true }))
      const withId = ['get_task', 'update_task', 'complete_task', 'delete_task', 'restore_task']

      for (const { name, inputSchema, outputSchema } of tools) {
        const args = withId.includes(name)
          ? { id: task.id }
          : name === 'add_tasks'
            ? { tasks: [{ title: 'x' }] }
            : {}
        const [result, error] = [await call(name, args), await call(name, { ...args, surprise: 1 })]

        expect([name, result.isError, error.isError]).toEqual([name, false, true])
        expect([name, ajv.validate(outputSchema, result.content)]).toEqual([name, true])
        expect([name, ajv.validate(outputSchema, error.content)]).toEqual([name, true])
        expect([name, ajv.validate(inputSchema, args)]).toEqual([name, true])
        expect([name, ajv.validate(inputSchema, { ...args, surprise: 1 })]).toEqual([name, false])
        if ('cursor' in result.content)
          expect(Object.keys(outputSchema.properties)).toEqual(Object.keys(result.content))
        if (name !== 'add_tasks') expect(inputSchema.required ?? []).toEqual(Object.keys(args))
      }
    })

    test('that asks for a long page reads 25 tasks of it, and goes on from there', async () => {
      const { call } = speak(api, await api.user())
      const tasks = Array.from({ length: 30 }, (_, i) => ({ title: `Task ${i}` }))
      const first = await call('add_tasks', { tasks })
      const whole = await call('add_tasks', { tasks: tasks.slice(5) })
      expect(whole.text).toBe(JSON.stringify(whole.content))
      expect(first.content.tasks).toHaveLength(30)
      expect(JSON.parse(first.text)).toEqual({ tasks: first.content.tasks.slice(0, 25), not_shown: 5 })

      await call('complete_task', {
        id: (await call('add_tasks', { tasks: [{ title: 'Done' }] })).content.tasks[0].id,
      })
      const long = await call('find_tasks', { limit: 60, status: ['pending'] })
      expect(long.content.tasks).toHaveLength(55)
      expect(long.content.cursor).toBeNull()
      expect(JSON.parse(long.text).tasks).toHaveLength(25)
      const read = []
      for (let page = long; ; ) {
        const { tasks, cursor } = JSON.parse(page.text)
        read.push(...tasks)
        if (cursor === null) break
        expect((await call('find_tasks', { cursor })).content.detail).toMatchObject([
          { loc: ['arguments', 'cursor'], type: 'cursor_invalid' },
        ])
        page = await call('find_tasks', { cursor, status: ['pending'] })
        expect(page.text).toBe(JSON.stringify(page.content))
      }
      expect(read).toEqual(long.content.tasks)
    })

    test('receives every wrong argument by name, and nothing is done', async () => {
      const { call, send } = speak(api, await api.user())
      const problemsOf = async (name: string, args: object) => {
        const { isError, content } = await call(name, args)
        expect({ isError, code: content.code }).toEqual({ isError: true, code: 'validation_failed' })
        return content.detail.map(({ loc, msg }: any) => `${loc.join('.')}: ${msg}`)
      }

      expect(
        await problemsOf('find_tasks', { limt: 5, status: 'pending', list: 'none', priority: '1' }),
      ).toEqual([
        'arguments.status: Input should be a list',
        'arguments.priority: Input should be a whole number',
        'arguments.list: Input should be a list',
        "arguments.limt: Unknown field: the nearest known one is 'limit'",
      ])
      const q = Array.from({ length: 21 }, (_, i) => `word${10 + i}`).join(' ')
      expect(await problemsOf('find_tasks', { q })).toEqual([
        'arguments.q: String should have at most 20 words, or characters of a script without spaces',
      ])
      const tasks = [{ title: 'Buy milk' }, { titel: 'Buy bread', due_at: 'tomorrow', status: 'done' }]
      expect(await problemsOf('add_tasks', { tasks })).toEqual([
        'arguments.tasks.1.title: Field required',
        "arguments.tasks.1.status: Input should be one of 'pending', 'in_progress', 'completed'",
        'arguments.tasks.1.due_at: Input should be a date and time with an offset (RFC 3339), such as 2026-11-23T18:00:00+01:00',
        "arguments.tasks.1.titel: Unknown field: the nearest known one is 'title'",
      ])
      expect(await problemsOf('add_tasks', { tasks: [] })).toEqual([
        'arguments.tasks: List should have at least 1 items',
      ])
      expect(await problemsOf('add_tasks', { tasks: Array(51).fill({ title: 'x' }) })).toEqual([
        'arguments.tasks: List should have at most 50 items',
      ])
      expect(await problemsOf('get_task', {})).toEqual(['arguments.id: Field required'])
      const { body, headers } = await send('tools/call', { name: 'get_task', arguments: {} })
      expect(body.result.structuredContent.request_id).toBe(headers.get('x-request-id'))
      expect((await call('task_stats')).content.total).toBe(0)
    })

    test('who has read an older version changes nothing, and is shown the task as it is now', async () => {
      const ada = await api.user()
      const { call } = speak(api, ada)
      const old = await api.task(ada)
      const now = (await call('update_task', { id: old.id, version: old.version, title: 'Buy bread' }))
        .content

      for (const name of ['update_task', 'complete_task', 'delete_task']) {
        const { isError, content, text } = await call(name, { id: old.id, version: old.version })

        expect(isError).toBe(true)
        expect(content).toMatchObject({ code: 'precondition_failed', current: now })
        expect(JSON.parse(text)).toEqual(content)
      }
      expect((await call('complete_task', { id: old.id, version: 0 })).isError).toBe(true)
      expect((await call('get_task', { id: old.id })).content).toEqual(now)
    })

    test('that repeats a call with its key adds nothing twice, and all or none', async () => {
      const ada = await api.user()
      const { call } = speak(api, ada)
      const add = (...titles: string[]) =>
        call('add_tasks', { key: 'monday', tasks: titles.map(title => ({ title })) })

      const [first, again] = [await add('Buy milk', 'Call Bob'), await add('Buy milk', 'Call Bob')]
      expect(again).toEqual(first)
      expect((await add('Buy milk', 'Call Eve')).content).toMatchObject({ code: 'idempotency_key_reused' })
      // It is the API's key.
      const { body } = await api.post('/tasks', {
        token: ada.token,
        json: { title: 'Buy milk' },
        headers: { 'idempotency-key': 'monday' },
      })
      expect(body).toEqual(first.content.tasks[0])
      expect((await call('task_stats')).content.total).toBe(2)
      const lost = { title: 'Lost', list_id: Bun.randomUUIDv7() }
      const refused = await call('add_tasks', { key: 'friday', tasks: [{ title: 'Call Ann' }, lost] })
      expect(refused.content).toMatchObject({ code: 'list_not_found', index: 1 })
      expect((await call('task_stats')).content.total).toBe(2)
      const { headers } = await api.post('/tasks', {
        token: ada.token,
        json: { title: 'Call Bob' },
        headers: { 'idempotency-key': 'monday1' },
      })
      expect(headers.get('location')).not.toContain(first.content.tasks[1].id)
    })

    test('never sees another user’s tasks', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      const task = await api.task(ada)
      await speak(api, ada).call('add_tasks', { key: 'monday', tasks: [{ title: 'Ada’s' }] })
      const { cursor } = (await speak(api, ada).call('find_tasks', { limit: 1 })).content
      const { call } = speak(api, bob)

      for (const name of ['get_task', 'update_task', 'complete_task', 'delete_task', 'restore_task']) {
        const { isError, content } = await call(name, { id: task.id })
        expect([name, isError, content.detail]).toEqual([name, true, 'Not authorized'])
      }
      expect((await call('find_tasks')).content).toEqual({ tasks: [], cursor: null })
      expect((await call('find_tasks', { cursor })).content.code).toBe('validation_failed')
      expect(
        (await call('add_tasks', { key: 'monday', tasks: [{ title: 'Bob’s' }] })).content.tasks,
      ).toHaveLength(1)
      expect((await api.get(`/tasks/${task.id}`, { token: ada.token })).body).toEqual(task)
    })

    test('leaves a line in the log, and a figure in the metrics, with the tool that it called', async () => {
      const ada = await api.user()
      const { call, send } = speak(api, ada)
      await call('find_tasks')
      await call('get_task', { id: 'unknown' })
      await send('tools/call', { name: 'unknown' })
      await send('tools/list', { name: 'get_task' })

      const lines = () => api.logs().filter(({ user_id }) => user_id === ada.id)
      await until(() => lines().length === 4)
      expect(lines().map(({ method, route, status }) => `${method} ${route} ${status}`)).toEqual([
        'POST /mcp find_tasks 200',
        'POST /mcp get_task 200',
        'POST /mcp 200',
        'POST /mcp 200',
      ])
      const { body } = await api.get(`${api.url}/metrics`, { token: metricsToken })
      expect(body).toContain('http_requests_total{method="POST",route="/mcp get_task",status="200"}')
      expect(body).not.toContain('/mcp unknown')
    })

    test('receives 503 with Retry-After while the database is in trouble, and is served afterwards', async () => {
      const ada = await api.user()
      const { send, call } = speak(api, ada)
      await call('find_tasks')
      await api.sql('alter table tasks rename to tasks_away', [])
      try {
        for (const revision of revisions) {
          const answer = await speak(api, ada, revision).send('tools/call', { name: 'task_stats' })
          expectError(answer, 503, 'unavailable', 'Service temporarily unavailable')
          expect(answer.headers.get('retry-after')).toBe('2')
        }
        expect((await send('tools/list')).status).toBe(200)
      } finally {
        await api.sql('alter table tasks_away rename to tasks', [])
      }
      expect((await call('task_stats')).content.total).toBe(0)
    })

    test('receives 401, and no result, when the account was deleted after its token was last looked up', async () => {
      const ada = await api.user()
      const { call, send } = speak(api, ada)
      await call('find_tasks')
      // For 700 ms no look is needed: the call passes, and fails in its statement.
      await api.sql('delete from user_versions where user_id = $1', [ada.id])
      await api.sql('delete from users where id = $1', [ada.id])

      const answer = await send('tools/call', { name: 'add_tasks', arguments: { tasks: [{ title: 'x' }] } })

      expectError(answer, 401, 'invalid_token', 'Could not validate credentials')
    })

    test('receives 503 while its rows are moving to another server', async () => {
      const ada = await api.user()
      // What a distributed PostgreSQL shows meanwhile.
      await api.sql('delete from user_versions where user_id = $1', [ada.id])

      const args = { tasks: [{ title: 'x' }] }
      const answer = await speak(api, ada).send('tools/call', { name: 'add_tasks', arguments: args })

      expectError(answer, 503, 'unavailable', 'Service temporarily unavailable')
    })
  },
  { METRICS_TOKEN: metricsToken },
)

test('the library is loaded with the first message, not before', () => {
  const read = (path: string) => readFileSync(join(import.meta.dir, '../src', path), 'utf8')
  const loads = (path: string, name: string) =>
    new Bun.Transpiler({ loader: 'ts' })
      .scanImports(read(path))
      .filter(imported => imported.path.includes(name))
      .map(({ kind }) => kind)
  const sources = [...new Bun.Glob('**/*.ts').scanSync(join(import.meta.dir, '../src'))]

  expect(sources.filter(path => loads(path, '@modelcontextprotocol').length > 0)).toEqual([
    'modules/mcp/protocol.ts',
  ])
  const loaders = sources.filter(path => loads(path, './protocol.ts').length > 0)
  expect(loaders).toEqual(['modules/mcp/routes.ts'])
  expect(loads(loaders[0]!, './protocol.ts')).toEqual(['dynamic-import'])
})

test('MCP=false: there is no such address', async () => {
  const api = await startService('embedded', { MCP: 'false' })
  try {
    expectError(await speak(api, await api.user()).send('tools/list'), 404, 'not_found', 'Not Found')
  } finally {
    await api.stop()
  }
})
