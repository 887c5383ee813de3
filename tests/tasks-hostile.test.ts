import { expect, test } from 'bun:test'
import { onBothDatabases } from './support/harness.ts'

const strange: unknown[] = [
  null,
  true,
  0,
  -1,
  1e308,
  '',
  '\0',
  '\ud800',
  'x'.repeat(5000),
  [],
  {},
  [[[[[[]]]]]],
  { $ne: null },
  "'; drop table tasks; --",
  '2026-02-31T00:00:00Z',
  'infinity',
  'NaN',
]

/** Chunked and with a length, whatever it is: it is sent as it stands. */
const bodies = [
  '',
  'null',
  '[]',
  '"x"',
  '{',
  '{"title":"x"}}',
  '{"title":"x","title":"y"}',
  '{"__proto__":{"title":"x"}}',
  '{"title":"x","constructor":{"prototype":{}}}',
  `${'['.repeat(5000)}${']'.repeat(5000)}`,
  `{"title":"x","tags":${JSON.stringify(Array(10_000).fill(1))}}`,
  `{"title":"x","priority":${'9'.repeat(1000)}}`,
  `{"title":"x","priority":1e999}`,
  '{"title":"\\ud800"}',
  '\ufeff{"title":"x"}',
]

onBothDatabases('whatever a client sends', api => {
  test('no field of a task makes the service fail', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const fields = [
      'title',
      'description',
      'status',
      'priority',
      'due_at',
      'tags',
      'position',
      'version',
      'id',
    ]
    for (const field of fields) {
      for (const value of strange) {
        const json = { title: 'x', [field]: value }
        const operations = [{ op: 'create', task: json }]
        const answers = await Promise.all([
          api.post('/tasks', { token: ada.token, json }),
          api.patch(`/tasks/${task.id}`, { token: ada.token, json }),
          api.post('/tasks/batch', { token: ada.token, json: { operations } }),
          api.post('/tasks/batch', {
            token: ada.token,
            json: { operations: [{ op: 'delete', [field]: value }] },
          }),
        ])
        for (const { status } of answers) expect(status).toBeLessThan(500)
      }
    }
  }, 60_000)

  test('no body does', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    for (const raw of bodies) {
      for (const [method, path] of [
        ['POST', '/tasks'],
        ['PATCH', `/tasks/${task.id}`],
        ['PUT', `/tasks/${task.id}`],
        ['POST', '/tasks/batch'],
        ['POST', `/tasks/${task.id}/restore`],
        ['DELETE', `/tasks/${task.id}`],
        ['DELETE', '/tasks/trash'],
      ] as const) {
        const headers = { 'content-type': 'application/json' }
        const { status } = await api.request(method, path, { token: ada.token, raw, headers })
        expect(status).toBeLessThan(500)
      }
    }
  }, 60_000)

  test('no parameter does', async () => {
    const ada = await api.user()
    await api.task(ada)
    const names = [
      ...['limit', 'offset', 'cursor', 'sort', 'total', 'status', 'priority', 'tag', 'q', 'overdue'],
      ...[
        'due_before',
        'due_after',
        'created_before',
        'created_after',
        'updated_after',
        'since',
        'tz',
        'permanent',
      ],
    ]
    const values = [
      '',
      '%00',
      '%ZZ',
      '%FF%FE',
      '%ED%A0%80',
      '[1,2]',
      '{"a":1}',
      'null',
      '-0',
      '1e3',
      '0x10',
      "'",
      '%25',
      'NaN',
    ]
    for (const name of names) {
      for (const value of values) {
        for (const path of ['/tasks', '/tasks/trash', '/tasks/changes', '/tasks/stats']) {
          const { status } = await api.get(`${path}?${name}=${value}&${name}=${value}`, { token: ada.token })
          expect([200, 422]).toContain(status)
        }
      }
    }
  }, 60_000)

  test('no header does', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    for (const value of [
      '',
      ' ',
      '"',
      '""',
      ','.repeat(900),
      '"x",'.repeat(240),
      'W/',
      '*,*',
      '\u00ff',
      'x'.repeat(2000),
    ]) {
      for (const name of ['if-match', 'if-none-match', 'idempotency-key']) {
        const before = process.cpuUsage()
        const sent = { token: ada.token, headers: { [name]: value } }
        const statuses = [
          (await api.get(`/tasks/${task.id}`, sent)).status,
          (await api.patch(`/tasks/${task.id}`, { ...sent, json: {} })).status,
          (await api.post('/tasks', { ...sent, json: { title: 'x' } })).status,
          (await api.post(`/tasks/${task.id}/restore`, sent)).status,
        ]
        for (const status of statuses) expect(status).toBeLessThan(500)
        const { user, system } = process.cpuUsage(before)
        // A few milliseconds; an expression that backtracks would take minutes.
        expect((user + system) / 1e6).toBeLessThan(2)
      }
    }
  }, 60_000)

  test('words in the place of an id are words, and other methods there are not allowed', async () => {
    const ada = await api.user()

    expect((await api.get('/tasks/changes', { token: ada.token })).status).toBe(200)
    expect((await api.get('/tasks/stats', { token: ada.token })).status).toBe(200)
    expect((await api.get('/tasks/trash/', { token: ada.token })).status).toBe(200)
    expect((await api.request('HEAD', '/tasks/trash', { token: ada.token })).status).toBe(200)
    expect((await api.get('/tasks/batch', { token: ada.token })).status).toBe(405)
    expect((await api.patch('/tasks/trash', { token: ada.token, json: {} })).status).toBe(405)
    const restore = await api.get(`/tasks/${crypto.randomUUID()}/restore`, { token: ada.token })
    expect([restore.status, restore.headers.get('allow')]).toEqual([405, 'POST'])
  })

  test('without a token the answer is nothing but 401', async () => {
    for (const [method, path] of [
      ['GET', '/tasks?limit=x'],
      ['GET', '/tasks/trash?limit=x'],
      ['GET', '/tasks/changes?since=x'],
      ['GET', '/tasks/stats?tz=x'],
      ['POST', '/tasks/batch'],
      ['POST', '/tasks/x/restore'],
      ['DELETE', '/tasks/trash'],
    ] as const) {
      const answer = await api.request(method, path, { headers: { 'if-match': 'x' } })
      expect(answer).toMatchObject({ status: 401, body: { detail: 'Not authenticated' } })
    }
  })
})
