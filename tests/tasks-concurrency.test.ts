import { expect, test } from 'bun:test'
import { onBothDatabases } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

onBothDatabases('tasks and other users', api => {
  test('every answer with one task carries its version as the ETag', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const at = `/tasks/${task.id}`

    const changed = await api.patch(at, { token: ada.token, json: { title: 'x' } })
    const replaced = await api.put(at, { token: ada.token, json: { title: 'y' } })
    const same = await api.patch(at, { token: ada.token, json: {} })
    await api.delete(at, { token: ada.token })
    const restored = await api.post(`${at}/restore`, { token: ada.token })
    const read = await api.get(at, { token: ada.token })

    for (const answer of [changed, replaced, same, restored, read]) {
      expect(answer.status).toBe(200)
      expect(answer.headers.get('etag')).toBe(`"${answer.body.version}"`)
    }
  })

  test('a task that is known already is not sent again', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const read = (tag: string) =>
      api.get(`/tasks/${task.id}`, { token: ada.token, headers: { 'if-none-match': tag } })

    const long = Array.from({ length: 300 }, (_, i) => `"${i}"`).join(', ')
    for (const tag of ['"1"', 'W/"1"', '*', '"0", W/"1"', '"0", , "1"', ',"1" ,', long]) {
      const answer = await read(tag)
      expect([answer.status, answer.body, answer.headers.get('etag')]).toEqual([304, undefined, '"1"'])
      expect(answer.headers.get('content-type')).toBeNull()
    }
    for (const tag of ['"2"', '"01"', '"x", "y"', '""']) expect((await read(tag)).body).toEqual(task)
    expect(await read('1')).toMatchObject({
      status: 422,
      body: { detail: [{ loc: ['header', 'if-none-match'] }] },
    })
  })

  test.each([
    ['"2"', 200],
    ['"7", "2"', 200],
    ['"7",, ,"2",', 200],
    ['*', 200],
    ['"1"', 412],
    ['W/"2"', 412],
    // What Apache httpd, lighttpd and Caddy make of "2".
    ['"2-gzip"', 200],
    ['"x", "2-zstd"', 200],
    ['W/"2-br"', 412],
    ['"1-deflate"', 412],
    ['"2-x"', 412],
    ['"02"', 412],
    ['""', 412],
    ['"9999999999999999999"', 412],
    ['"99999999999999999999999999"', 412],
    ['2', 422],
    ['"2', 422],
    ['"1" "2"', 422],
    ['*, "2"', 422],
    [',', 422],
  ])('a change with If-Match: %s is answered with %i', async (tag, status) => {
    const ada = await api.user()
    const task = await api.task(ada)
    const at = `/tasks/${task.id}`
    const { body: current } = await api.patch(at, { token: ada.token, json: { title: 'now at two' } })
    const headers = { 'if-match': tag }

    const change = await api.patch(at, { token: ada.token, headers, json: { title: 'three' } })

    expect(change.status).toBe(status)
    if (status === 412)
      expect(change.body).toMatchObject({
        code: 'precondition_failed',
        detail: 'The task has changed since',
        current,
      })
    if (status === 422) expect(change.body.detail[0].loc).toEqual(['header', 'if-match'])
    if (status === 200) return
    const put = await api.put(at, { token: ada.token, headers, json: { title: 'three' } })
    expect(put.status).toBe(status)
    for (const query of ['', '?permanent=true']) {
      const refused = await api.delete(at + query, { token: ada.token, headers })
      expect(refused).toMatchObject({ status, body: status === 412 ? { current } : {} })
    }
    expect((await api.get(at, { token: ada.token })).body).toMatchObject({ title: 'now at two', version: 2 })
  })

  test.each([
    [{ 'if-none-match': '"1"' }, 200],
    [{ 'if-none-match': 'W/"1", "02", "x"' }, 200],
    [{ 'if-none-match': '"1"', 'if-match': '"2"' }, 200],
    [{ 'if-none-match': '"2"' }, 412],
    [{ 'if-none-match': 'W/"2"' }, 412],
    [{ 'if-none-match': '"1", "2"' }, 412],
    [{ 'if-none-match': '*' }, 412],
    [{ 'if-none-match': '*', 'if-match': '"2"' }, 412],
    [{ 'if-none-match': '"2"', 'if-match': '*' }, 412],
    [{ 'if-none-match': '"1"', 'if-match': '"3"' }, 412],
    [{ 'if-none-match': '2' }, 422],
  ])('a change with %o is answered with %i', async (headers, status) => {
    const ada = await api.user()
    const { id } = await api.task(ada)
    const at = `/tasks/${id}`
    const { body: current } = await api.patch(at, { token: ada.token, json: { title: 'now at two' } })

    const change = await api.patch(at, { token: ada.token, headers, json: { title: 'three' } })

    expect(change.status).toBe(status)
    if (status === 200) return
    const sent = { token: ada.token, headers }
    const others = [
      await api.put(at, { ...sent, json: { title: 'three' } }),
      await api.patch(at, { ...sent, json: {} }),
      await api.post(`${at}/restore`, sent),
      await api.delete(at, sent),
      await api.delete(`${at}?permanent=true`, sent),
    ]
    for (const refused of [change, ...others]) {
      const problem = { detail: [{ loc: ['header', 'if-none-match'] }] }
      const conflict = { code: 'precondition_failed', current }
      expect(refused).toMatchObject({ status, body: status === 412 ? conflict : problem })
    }
    expect((await api.get(at, { token: ada.token })).body).toEqual(current)
  })

  test('a precondition on a task that is not there, or not yours, changes nothing about 404 and 403', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada)
    const headers = { 'if-match': '"9"' }

    const theirs = await api.patch(`/tasks/${task.id}`, { token: bob.token, headers, json: { title: 'x' } })
    const none = await api.delete(`/tasks/${crypto.randomUUID()}`, { token: bob.token, headers })

    expect(theirs).toMatchObject({ status: 403, body: { detail: 'Not authorized' } })
    expect(none).toMatchObject({ status: 404, body: { detail: 'Task not found' } })
  })

  test('of twelve changes to one version one is carried out', async () => {
    const ada = await api.user()
    const task = await api.task(ada)

    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) =>
        api.patch(`/tasks/${task.id}`, {
          token: ada.token,
          headers: { 'if-match': '"1"' },
          json: { title: `${i}` },
        }),
      ),
    )

    expect(answers.filter(answer => answer.status === 200)).toHaveLength(1)
    expect(answers.filter(answer => answer.status === 412)).toHaveLength(11)
  })

  test('twenty creates with one key at once make one task and twenty equal answers', async () => {
    const ada = await api.user()
    const create = () =>
      api.post('/tasks', {
        token: ada.token,
        headers: { 'idempotency-key': 'a key of mine' },
        json: { title: 'once' },
      })

    const answers = await Promise.all(Array.from({ length: 20 }, create))

    expect(answers.map(answer => answer.status)).toEqual(Array(20).fill(201))
    expect(new Set(answers.map(answer => JSON.stringify(answer.body))).size).toBe(1)
    expect(new Set(answers.map(answer => answer.headers.get('location'))).size).toBe(1)
    expect((await api.get('/tasks', { token: ada.token })).body).toEqual([answers[0]!.body])
    expect((await api.task(ada)).version).toBe(2)
  })

  test('the id that a key makes cannot be computed without the secret of the service', async () => {
    const ada = await api.user()
    const create = (secretKey: string) =>
      serviceOn(api, secretKey).create(ada.id, { title: 'x' }, 'guessable')

    const [one, again, other] = [await create('one'), await create('one'), await create('another')]

    expect(again.id).toBe(one.id)
    expect(other.id).not.toBe(one.id)
    expect((await api.get('/tasks', { token: ada.token })).body).toHaveLength(2)
  })

  test('keys belong to their user, and no key is no key', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const create = (token: string, key: string) =>
      api.post('/tasks', { token, headers: { 'idempotency-key': key }, json: { title: 'x' } })

    const ids = [
      (await create(ada.token, 'k')).body.id,
      (await create(bob.token, 'k')).body.id,
      (await create(ada.token, 'K')).body.id,
      (await create(ada.token, 'x'.repeat(255))).body.id,
    ]

    expect(new Set(ids).size).toBe(4)
    for (const key of ['', 'x'.repeat(256), 'schlüssel']) {
      const answer = await create(ada.token, key)
      expect(answer).toMatchObject({
        status: 422,
        body: { detail: [{ loc: ['header', 'idempotency-key'] }] },
      })
    }
  })
})
