import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Kind } from '@sinclair/typebox'
import { version } from '../package.json'
import { operationsOn } from '../src/cli/operations.ts'
import { patiently } from '../src/cli/patiently.ts'
import type { NewRow } from '../src/cli/transfer/bulk-insert.ts'
import { exportAll } from '../src/cli/transfer/export.ts'
import { importFile } from '../src/cli/transfer/import-file.ts'
import { createLoader, type Loader } from '../src/cli/transfer/loader.ts'
import { createDb } from '../src/db/drizzle.ts'
import { AppError } from '../src/lib/errors.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { executablePath, startExecutable } from './support/executable.ts'
import { exportOf, taskLine, tombstoneLine, userLine } from './support/export-lines.ts'
import {
  type DatabaseKind,
  onBothDatabases,
  type Service,
  startService,
  type User,
} from './support/harness.ts'
import { createMeeting } from './support/meet.ts'
import { execute } from './support/postgres-server.ts'
import { privateDatabase } from './support/template.ts'

/** The lines of an export without its header and without versions, which every database assigns itself. */
const contentOf = (text: string) =>
  text
    .trim()
    .split('\n')
    .slice(1)
    .map(line => ({ ...JSON.parse(line), version: undefined, last_version: undefined }))

const makeList = async (api: Service, { token }: User) =>
  (await api.post('/lists', { token, json: { name: 'Groceries' } })).body

/** A service with users and tasks in every state; `cursor` is where Ada's client stands. */
async function livedIn(kind: DatabaseKind, place: Place) {
  const api = await startService(kind, place.env)
  const ada = await api.user('Ada@example.com')
  const bob = await api.user('bob@example.com')
  for (const n of [1, 2, 3, 4])
    await api.task(ada, { title: `Task ${n}`, tags: ['home', 'a "b" \\c'], priority: n })
  const { body: list } = await api.get('/tasks', ada)
  await api.patch(`/tasks/${list[0].id}`, {
    ...ada,
    json: { status: 'completed', due_at: '2026-11-24T19:00:00+01:00' },
  })
  const { body: first } = await api.get('/tasks/changes', ada)
  await api.delete(`/tasks/${list[1].id}`, ada)
  await api.delete(`/tasks/${list[2].id}?permanent=true`, ada)
  const [kept, deleted] = [await makeList(api, bob), await makeList(api, bob)]
  await api.delete(`/lists/${deleted.id}`, bob)
  const parent = await api.task(bob, { title: 'Bob’s', list_id: kept.id })
  await api.task(bob, { title: 'Bob’s child', parent_id: parent.id })
  // The child is older than this change of its parent.
  await api.patch(`/tasks/${parent.id}`, { ...bob, json: { priority: 1 } })
  await api.stop()
  return { ada, cursor: first.cursor as string, trashed: list[1].id as string, gone: list[2].id as string }
}

const kinds = ['postgres', 'embedded'] as const

describe.each(kinds.flatMap(from => kinds.map(to => [from, to] as const)))(
  'export from %s, import to %s',
  (from, to) => {
    const places: Place[] = []
    afterAll(async () => {
      for (const place of places) await place.remove()
    })

    test('everything arrives: passwords, ids, times, trash, deletions; clients sync from the beginning', async () => {
      const [old, fresh] = [await newPlace(from), await newPlace(to)]
      places.push(old, fresh)
      const { ada, cursor, trashed, gone } = await livedIn(from, old)
      const file = join(old.folder, 'todo.ndjson')

      const exported = await runCommand(['export', file], old)
      const imported = await runCommand(['import', file], fresh)
      const again = await runCommand(['import', file], fresh)
      const back = await runCommand(['export'], fresh)

      expect([exported.exitCode, imported.exitCode, again.exitCode]).toEqual([0, 0, 0])
      expect(exported.stderr).toBe(
        'exported 2 users, 1 lists, 5 tasks, 2 notes of deletions; no sessions or API tokens\n',
      )
      expect(imported.stderr).toBe(
        'added 2 users, 5 tasks, 1 lists, 2 notes of deletions; 0 were here already; 0 skipped\n',
      )
      expect(again.stderr).toContain('added 0 users, 0 tasks; 10 were here already; 0 skipped')
      expect(contentOf(back.stdout)).toEqual(contentOf(readFileSync(file, 'utf8')))
      const { exported_at, ...made } = JSON.parse(readFileSync(file, 'utf8').split('\n', 1)[0]!)
      expect(made).toEqual({ type: 'header', format: 'todo-api-export', version: 3, program: version })
      expect(Math.abs(Date.now() - Date.parse(exported_at))).toBeLessThan(60_000)

      const api = await startService(to, fresh.env)
      try {
        const login = await api.post('/auth/login', { form: { username: ada.email, password: ada.password } })
        expect(login.status).toBe(200)
        const token = login.body.access_token
        const since = await api.get(`/tasks/changes?since=${cursor}`, { token })
        expect([since.status, since.body.code]).toEqual([410, 'cursor_expired'])
        const { body: changes } = await api.get('/tasks/changes', { token })
        expect(changes.tasks).toHaveLength(2)
        expect(changes.deleted.sort()).toEqual([trashed, gone].sort())
        expect((await api.get('/tasks/trash', { token })).body).toMatchObject([{ id: trashed }])
        expect((await api.get('/tasks?q=task', { token })).body).toHaveLength(2)
      } finally {
        await api.stop()
      }
    }, 60_000)
  },
)

describe('a file to import', () => {
  let place: Place
  let good: string[]
  beforeAll(async () => {
    place = await newPlace('postgres')
    await livedIn('postgres', place)
    good = (await runCommand(['export'], place)).stdout.trim().split('\n')
  }, 60_000)
  afterAll(() => place.remove())

  const importLines = (lines: readonly string[]) =>
    runCommand(['import', '-'], { ...place, stdin: lines.join('\n') })
  const change = (type: string, fields: object) => (line: string) =>
    line.includes(`"type":"${type}"`) ? JSON.stringify({ ...JSON.parse(line), ...fields }) : line

  test.each([
    ['no header', (lines: string[]) => lines.slice(1), 'line 1: this is not a file that `export` wrote'],
    [
      'a newer format',
      (lines: string[]) => lines.map(change('header', { version: 4 })),
      'line 1: a newer program',
    ],
    ['an end that is missing', (lines: string[]) => lines.slice(0, -1), 'the file is not complete'],
    [
      'a line that is cut off',
      (lines: string[]) => [...lines.slice(0, 4), lines[4]!.slice(0, 30)],
      'line 5: this is not a JSON',
    ],
    [
      'a task whose title is no text',
      (lines: string[]) => lines.map(change('task', { title: 7 })),
      'line 5: title: Input should be a valid string',
    ],
    [
      'a user with a password in the clear',
      (lines: string[]) => lines.map(change('user', { password_hash: 'x' })),
      'line 2: password_hash',
    ],
    ...['note', 'constructor', '__proto__', 'toString', 7, ['task'], {}].map(
      type =>
        [
          `the type ${JSON.stringify(type)}`,
          (lines: string[]) => lines.map(change('tombstone', { type })),
          'its type is unknown to this program',
        ] as const,
    ),
    [
      'a counter that leaves no room for later changes',
      (lines: string[]) => lines.map(change('user', { last_version: 2 ** 52 + 1 })),
      'line 2: last_version: Input should be at most 4503599627370496',
    ],
    [
      'a moment that is none',
      (lines: string[]) => lines.map(change('task', { created_at: '2026-02-31T00:00:00Z' })),
      'line 5: created_at',
    ],
  ] as const)('with %s is refused, and the line is named', async (_, spoil, message) => {
    const { exitCode, stderr } = await importLines(spoil([...good]))

    expect(stderr).toContain(message)
    expect(exitCode).toBe(1)
    expect(stderr).not.toContain('    at ')
  })

  test('a row of it that the database refuses is named by its line', async () => {
    const at = good.findIndex(line => line.includes('"type":"task"'))
    const refused = JSON.stringify({ ...JSON.parse(good[at]!), id: crypto.randomUUID(), title: '' })
    const { exitCode, stderr } = await importLines(good.with(at, refused))

    expect(stderr).toContain(`skipped line ${at + 1}: it breaks the rule tasks_title_length\n`)
    expect(stderr).toContain('added 0 users, 0 tasks')
    expect(exitCode).toBe(1)
  })

  test('of one user has nothing of the others', async () => {
    const url = place.env.DATABASE_URL!
    const gone = crypto.randomUUID()
    await execute(
      url,
      `insert into task_tombstones (id, user_id, version, deleted_at)
       select '${gone}', id, 77, now() from users where email = 'bob@example.com'`,
    )
    const { stdout } = await runCommand(['export', '--user', 'ADA@example.com'], place)
    await execute(url, `delete from task_tombstones where id = '${gone}'`)
    const other = await newPlace('postgres')

    expect(stdout).not.toContain('bob')
    expect(stdout).not.toContain(gone)
    expect(await runCommand(['import', '-'], { ...other, stdin: stdout })).toMatchObject({ exitCode: 0 })
    expect((await runCommand(['export', '--user', 'missing@example.com'], place)).stderr).toBe(
      'there is no user missing@example.com\n',
    )
    await other.remove()
  })

  test('adds what is missing under new numbers where a user went on working', async () => {
    const url = place.env.DATABASE_URL!
    await execute(url, `delete from tasks where title = 'Task 1'`)
    await execute(url, `update user_versions set last_version = last_version + 5 where last_version > 3`)
    const { stderr, exitCode } = await importLines(good)

    expect(stderr).toContain('added 0 users, 1 tasks')
    expect(exitCode).toBe(0)
    const [row] = await execute(
      url,
      `select version, last_version from tasks t join user_versions c using (user_id) where title = 'Task 1'`,
    )
    expect(row!.version).toBe(row!.last_version)
  })

  test('is found by searches', async () => {
    const other = await newPlace('postgres')
    await runCommand(['import', '-'], { ...other, stdin: good.join('\n') })
    const api = await startService('postgres', other.env)
    const login = await api.post('/auth/login', {
      form: { username: 'ada@example.com', password: 'correct horse' },
    })
    const found = await api.get('/tasks?q=task&sort=title&total=true', { token: login.body.access_token })
    expect(found.headers.get('x-total-count')).toBe('2')
    await api.stop()
    await other.remove()
  }, 60_000)

  test('can be read by a running service with the embedded database', async () => {
    const api = await startExecutable({ ...place.env, DATABASE_URL: '', DATA_DIR: 'data' })
    const env = { ...place.env, DATABASE_URL: '', DATA_DIR: join(api.folder, 'data') }
    const { stderr, exitCode } = await runCommand(['import', '-'], { env, stdin: good.join('\n') })
    const { stdout } = await runCommand(['export'], { env })

    expect(readdirSync(env.DATA_DIR).filter(name => name.startsWith('copy-'))).toEqual([])
    expect([stderr, exitCode]).toEqual([expect.stringContaining('added 2 users, 5 tasks'), 0])
    expect(contentOf(stdout)).toEqual(contentOf(good.join('\n')))
    expect(await api.stop()).toBe(0)
  })
})

test('cursors and ETags from elsewhere are refused, also those of changes after the export', async () => {
  const [from, to] = [await newPlace('embedded'), await newPlace('postgres')]
  try {
    const { ada, cursor } = await livedIn('embedded', from)
    const { stdout: lines } = await runCommand(['export'], from)
    const old = await startService('embedded', from.env)
    const signIn = async (api: { post: typeof old.post }) =>
      (await api.post('/auth/login', { form: { username: ada.email, password: ada.password } })).body
        .access_token
    const token = await signIn(old)
    const [task] = (await old.get('/tasks', { token })).body
    const etags: string[] = []
    for (const title of ['later', 'later still']) {
      const { headers } = await old.patch(`/tasks/${task.id}`, { token, json: { title } })
      etags.push(headers.get('etag')!)
    }
    const { body: last } = await old.get('/tasks/changes', { token })
    await old.stop()

    expect(await runCommand(['import', '-'], { ...to, stdin: lines })).toMatchObject({ exitCode: 0 })
    const api = await startService('postgres', to.env)
    const here = { token: await signIn(api) }
    for (const title of ['here', 'here again', 'and again']) {
      await api.patch(`/tasks/${task.id}`, { ...here, json: { title } })
    }
    for (const since of [cursor, last.cursor]) {
      expect((await api.get(`/tasks/changes?since=${since}`, here)).status).toBe(410)
    }
    for (const etag of etags) {
      const headers = { 'if-match': etag }
      expect((await api.patch(`/tasks/${task.id}`, { ...here, json: { title: 'x' }, headers })).status).toBe(
        412,
      )
    }
    await api.stop()
  } finally {
    await from.remove()
    await to.remove()
  }
}, 60_000)

test('deletions come in after the tasks, under versions of their own', async () => {
  const place = await newPlace('postgres')
  const eve = crypto.randomUUID()
  const rows = [taskLine(eve, 2), taskLine(eve, 4), tombstoneLine(eve, 1), tombstoneLine(eve, 3)]
  const { stderr } = await runCommand(['import', '-'], {
    ...place,
    stdin: exportOf(userLine(eve, { last_version: 4 }), ...rows).join(''),
  })
  expect(stderr).toContain('added 1 users, 2 tasks, 2 notes of deletions; 0 were here already; 0 skipped')
  const [row] = await execute(
    place.env.DATABASE_URL!,
    `select count(distinct version)::int as numbers, (select last_version >= max(version) from user_versions) as is_last
     from (select version from tasks union all select version from task_tombstones) v`,
  )
  expect(row).toEqual({ numbers: 4, is_last: true } as never)
  await place.remove()
})

onBothDatabases('the loader', api => {
  const load = async (work: (loader: Loader) => Promise<unknown>) => {
    const said: string[] = []
    let counted = 0
    const add = (count: number) => {
      counted += count
    }
    const loader = createLoader(operationsOn(createDb(api.driver)), {
      add,
      say: message => void said.push(message),
    })
    await work(loader)
    const { added, present, skipped } = loader.counts
    expect(counted).toBe(Object.values(added).reduce((sum, count) => sum + count, present + skipped))
    return said
  }
  const row = (user_id: string, version: number, fields: object = {}) => {
    const { type: _, ...columns } = taskLine(user_id, version, fields)
    return { label: columns.title, table: 'task' as const, columns }
  }
  const numbers = async (userId: string) =>
    (
      await api.sql(
        `select version from tasks where user_id = $1 union all
         select version from task_tombstones where user_id = $1 order by 1`,
        [userId],
      )
    ).map(([version]) => version)

  test('assigns rows the next versions, in their order, whatever versions they had', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    await api.delete(`/tasks/${task.id}?permanent=true`, ada)
    const trashed = await api.task(ada)
    await api.delete(`/tasks/${trashed.id}`, ada)
    expect(await numbers(ada.id)).toEqual([2, 4])

    await load(loader => loader.add([1, 99, 3, 4, 4].map(version => row(ada.id, version))))

    expect(await numbers(ada.id)).toEqual([2, 4, 5, 6, 7, 8, 9])
    expect((await api.task(ada)).version).toBe(10)
    // The purge makes a tombstone of what is in the trash.
    expect((await api.delete('/tasks/trash', ada)).status).toBe(204)
    expect(await numbers(ada.id)).toEqual([2, 4, 5, 6, 7, 8, 9, 10])
  })

  test('of a batch with rows that the database refuses, by its own rules, takes the others', async () => {
    const ada = await api.user()
    const titles: Record<number, string> = { 2: `\x1b[2J${'x'.repeat(300)}`, 7: ' ', 8: 'a\0b' }
    const rows = Array.from({ length: 10 }, (_, i) => row(ada.id, i, titles[i] ? { title: titles[i] } : {}))

    expect(await load(loader => loader.add(rows))).toEqual([
      `skipped \ufffd[2J${'x'.repeat(300)}: it breaks the rule tasks_title_length`,
      'skipped  : it breaks the rule tasks_title_not_blank',
      'skipped a\ufffdb: the database refuses it (22P05)',
    ])
    expect(await numbers(ada.id)).toHaveLength(7)
  })

  test('adds a user once, not under the address of another, and leaves the others alone', async () => {
    const ada = await api.user()
    await api.task(ada)
    const eve = `${crypto.randomUUID()}@example.com`
    const user = (id: string) => {
      const { type: _, last_version: __, ...columns } = userLine(id, { email: eve })
      return { label: eve, table: 'user' as const, columns: { ...columns, normalized_email: eve } }
    }
    const [first, second, third] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()]
    const skipped = await load(async loader => {
      await loader.add([user(first), user(first), user(second)])
      expect(loader.counts).toMatchObject({ added: { user: 1 }, present: 1 })
      await loader.add([row(first, 1), user(third), row(first, 2)])
      expect(loader.counts).toMatchObject({ added: { user: 1, task: 2 }, present: 1 })
    })

    const reason = `skipped ${eve}: another account here has this e-mail address`
    expect(skipped).toEqual([reason, reason])
    expect((await api.task(ada)).version).toBe(2)
  })

  test('refuses a list or parent of another user, a parent of a parent, and one from the trash', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const foreign = await api.task(bob)
    const list = await makeList(api as Service, bob)
    const parent = row(ada.id, 1)
    const trashed = row(ada.id, 2, { deleted_at: new Date().toISOString() })
    const child = row(ada.id, 3, { parent_id: parent.columns.id })
    await load(loader => loader.add([parent, trashed, child]))
    const rest = [
      row(ada.id, 4, { parent_id: child.columns.id }),
      row(ada.id, 5, { parent_id: trashed.columns.id }),
      row(ada.id, 6, { parent_id: trashed.columns.id, deleted_at: new Date().toISOString() }),
      row(ada.id, 7, { parent_id: foreign.id }),
      row(ada.id, 8, { list_id: list.id }),
    ]

    expect(await load(loader => loader.add(rest))).toEqual([])
    const found = await api.sql(
      'select title, parent_id, list_id from tasks where user_id = $1 and version > 2 order by title',
      [ada.id],
    )
    expect(found).toEqual([
      ['Task 3', parent.columns.id, null],
      ['Task 4', null, null],
      ['Task 5', null, null],
      ['Task 6', trashed.columns.id, null],
      ['Task 7', null, null],
      ['Task 8', null, null],
    ])
  })

  test.each([undefined, '42P01', '53100'])(
    'gives up at once when the database is broken (%p)',
    async code => {
      const addRows = () => Promise.reject(Object.assign(new Error('broken'), { code }))
      const loader = createLoader({ addRows }, { add() {}, say() {} })

      await expect(loader.add([row(crypto.randomUUID(), 1)])).rejects.toThrow('broken')
    },
  )

  test('tries again when the database does not answer', async () => {
    const ada = await api.user()
    const { addRows } = operationsOn(createDb(api.driver))
    let tries = 0
    const away = async (...args: Parameters<typeof addRows>) => {
      if (++tries === 1) throw new AppError('unavailable')
      return addRows(...args)
    }
    const loader = createLoader({ addRows: away }, { add() {}, say() {} })
    await loader.add([row(ada.id, 1)])

    expect([tries, loader.counts.added.task, loader.counts.skipped]).toEqual([2, 1, 0])
  })

  test('counts a row that comes twice once', async () => {
    const ada = await api.user()
    const twice = row(ada.id, 1)
    await load(async loader => {
      await loader.add([twice, twice])
      expect(loader.counts).toMatchObject({ added: { task: 1 }, present: 1 })
    })
  })
})

test('work is tried again for half a minute, twice a second', async () => {
  let now = 0
  const clock = spyOn(performance, 'now').mockImplementation(() => now)
  const pause = spyOn(Bun, 'sleep').mockImplementation(async milliseconds => {
    now += Number(milliseconds)
  })
  let tries = 0
  const failing = patiently(async () => {
    tries++
    throw new AppError('unavailable')
  })
  await expect(failing).rejects.toThrow(AppError)
  const outcome = [tries, now]
  for (const spy of [clock, pause]) spy.mockRestore()

  expect(outcome).toEqual([62, 30_500])
})

test('the loader waits for a writer of the same user, and takes the versions that follow', async () => {
  const database = await privateDatabase()
  const api = await startService('postgres', { DATABASE_URL: database.url })
  const meeting = createMeeting(database.directUrl)
  const ada = await api.user()
  const { type: _, ...columns } = taskLine(ada.id, 1)
  const loader = createLoader(operationsOn(createDb(api.driver)), { add() {}, say() {} })
  let adding: Promise<void> | undefined

  await meeting.sql.begin(async tx => {
    await tx`update user_versions set last_version = 7 where user_id = ${ada.id}`
    adding = loader.add([{ label: 'a task', table: 'task', columns }])
    await meeting.untilWaiting()
  })
  await adding

  expect(await api.sql('select version from tasks', [])).toEqual([[8]])
  expect((await api.task(ada)).version).toBe(9)
  await meeting.close()
  await api.stop()
  await database.drop()
})

test('what a deleted account has left is not exported, takes in nothing, and is no part of an account that comes again', async () => {
  const place = await newPlace('postgres')
  const url = place.env.DATABASE_URL!
  const eve = crypto.randomUUID()
  const lines = exportOf(userLine(eve, { last_version: 1 }), taskLine(eve, 1))
  const take = (lines: string[]) => runCommand(['import', '-'], { ...place, stdin: lines.join('') })
  await take(lines)
  await take(exportOf(taskLine(eve, 2)))
  await execute(url, 'delete from users')

  expect((await runCommand(['export'], place)).stdout).toContain(
    '"user":0,"list":0,"task":0,"tombstone":0,"list_tombstone":0',
  )
  expect(await take(exportOf(taskLine(eve, 3)))).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining('is not here'),
  })
  expect((await take(lines)).stderr).toContain('added 1 users, 1 tasks; 0 were here already')
  expect((await runCommand(['export'], place)).stdout).toContain(
    '"user":1,"list":0,"task":1,"tombstone":0,"list_tombstone":0',
  )
  await place.remove()
})

test('ids in upper case are those in lower case, and an account without versions has them again', async () => {
  const place = await newPlace('postgres')
  const [eve, task] = [crypto.randomUUID(), crypto.randomUUID()]
  const take = (user: string, id: string) => {
    const lines = exportOf(userLine(user, { last_version: 1 }), taskLine(user, 1, { id }))
    return runCommand(['import', '-'], { ...place, stdin: lines.join('') })
  }

  expect((await take(eve.toUpperCase(), task.toUpperCase())).stderr).toContain(
    'added 1 users, 1 tasks; 0 were',
  )
  expect((await take(eve, task)).stderr).toContain('added 0 users, 0 tasks; 2 were')
  await execute(place.env.DATABASE_URL!, 'delete from user_versions')
  expect((await runCommand(['export'], place)).stdout).toContain('"user":1,"list":0,"task":0')
  expect((await take(eve, task)).stderr).toContain('added 0 users, 1 tasks; 1 were')
  expect((await runCommand(['export'], place)).stdout).toContain('"user":1,"list":0,"task":1')
  await place.remove()
})

test('an import that fails says what it has added before', async () => {
  const place = await newPlace('postgres')
  const eve = crypto.randomUUID()
  const tasks = Array.from({ length: 250 }, (_, i) =>
    taskLine(eve, 2 + i, i === 240 ? { priority: 'x' } : {}),
  )
  const stdin = exportOf(userLine(eve), ...tasks).join('')
  const outcome = await runCommand(['import', '-'], { ...place, stdin })
  await place.remove()

  expect(outcome.exitCode).toBe(1)
  expect(outcome.stderr).toContain('added 1 users, 199 tasks; 0 were here already; 0 skipped')
  expect(outcome.stderr).toContain('line 243: priority: ')
})

test('an account without versions is exported so that it can be imported', async () => {
  const [from, to] = [await newPlace('postgres'), await newPlace('postgres')]
  const lines = exportOf(userLine(crypto.randomUUID(), { last_version: 1 }))
  await runCommand(['import', '-'], { ...from, stdin: lines.join('') })
  await execute(from.env.DATABASE_URL!, 'delete from user_versions')
  const { stdout } = await runCommand(['export'], from)

  expect((await runCommand(['import', '-'], { ...to, stdin: stdout })).stderr).toContain('added 1 users')
  await Promise.all([from.remove(), to.remove()])
})

test('what was accepted once comes in, whatever the rules of requests are today', async () => {
  const place = await newPlace('postgres')
  const eve = crypto.randomUUID()
  const user = userLine(eve, { email: 'no-address', last_version: 1 })
  const task = taskLine(eve, 1, { tags: ['a\tb'] })
  const outcome = await runCommand(['import', '-'], { ...place, stdin: exportOf(user, task).join('') })

  expect(outcome).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('added 1 users, 1 tasks') })
  const { stdout } = await runCommand(['export'], place)
  expect(contentOf(stdout)).toMatchObject([
    { id: eve, email: 'no-address' },
    { id: task.id, tags: ['a\tb'] },
    {},
  ])
  await place.remove()
})

test('what reads exports and backups uses no schema of a request', async () => {
  const names = ['import-file', 'loader', 'bulk-insert', 'format'].map(name => `transfer/${name}.ts`)
  const files = [...names, 'backup/restore.ts']
  const source = files.map(file => readFileSync(join(import.meta.dir, '../src/cli', file), 'utf8')).join('')
  const schemas: string[] = []
  const imports = [...source.matchAll(/^import \{([^}]+)\} from '(?:\.\.\/)+(modules\/[^']+)'/gm)]
  expect(imports).not.toEqual([])
  for (const [, names, path] of imports) {
    const module = await import(join(import.meta.dir, '../src', path!))
    const values = names!.split(',').map(name => name.trim())
    // Functions such as `normalizeEmail` and lists of tables judge nothing.
    schemas.push(...values.filter(name => typeof module[name] === 'object' && Kind in module[name]))
  }

  expect(
    schemas,
    `src/cli judges stored rows by the rules of requests: when one of them becomes stricter, exports and backups ` +
      'from before cannot be read. Check the types of the columns (`schemaOf`) and leave the rules to the database.',
  ).toEqual([])
})

test('a batch that takes the database too long goes in by smaller ones', async () => {
  const place = await newPlace('postgres')
  const url = place.env.DATABASE_URL!
  await execute(
    url,
    `create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.005); return new; end';
     create trigger slow before insert on tasks for each row execute function slow()`,
  )
  const eve = crypto.randomUUID()
  const lines = exportOf(
    userLine(eve, { last_version: 600 }),
    ...Array.from({ length: 600 }, (_, n) => taskLine(eve, n + 1)),
  )
  const { stderr, exitCode } = await runCommand(['import', '-'], { ...place, stdin: lines.join('') })

  expect([exitCode, stderr]).toEqual([0, 'added 1 users, 600 tasks; 0 were here already; 0 skipped\n'])
  const [row] = await execute(
    url,
    'select (max(version) - min(version) + 1)::int as max, count(distinct version)::int as numbers from tasks',
  )
  expect(row).toEqual({ max: 600, numbers: 600 } as never)
  await place.remove()
}, 60_000)

test('an export is of one moment: it holds no task of a user that it lacks', async () => {
  const place = await newPlace('postgres')
  const url = place.env.DATABASE_URL!
  const add = (from: string) =>
    execute(
      url,
      `with made as (
         insert into users (id, email, normalized_email, password_hash)
         select gen_random_uuid(), n || '@example.com', n || '@example.com', 'x' from ${from} n returning id
       ), counter as (insert into user_versions (user_id, last_version) select id, 1 from made returning user_id)
       insert into tasks (id, user_id, title, version) select gen_random_uuid(), user_id, 'Task', 1 from counter`,
    )
  await add('generate_series(1, 3000)')
  const pipe = join(place.folder, 'pipe')
  await Bun.$`mkfifo ${pipe}`
  const child = Bun.spawn(['sh', '-c', '"$0" export > "$1"', await executablePath(), pipe], {
    env: { PATH: process.env.PATH, ...place.env },
    stderr: 'pipe',
  })
  // A pipe holds a small part of the users: the export waits until the others are read.
  const reader = Bun.file(pipe).stream().getReader()
  const chunks = [(await reader.read()).value!]
  await add(`unnest(array['late'])`)
  for (let part = await reader.read(); !part.done; part = await reader.read()) chunks.push(part.value)

  expect(await child.exited).toBe(0)
  const lines = Buffer.concat(chunks)
    .toString()
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  const users = new Set(lines.filter(({ type }) => type === 'user').map(({ id }) => id))
  const tasks = lines.filter(({ type }) => type === 'task')
  expect([users.size, tasks.length]).toEqual([3000, 3000])
  expect(tasks.filter(({ user_id }) => !users.has(user_id))).toEqual([])
  await place.remove()
}, 60_000)

test('an export waits until a part is written before it reads the next', async () => {
  const database = await privateDatabase()
  const api = await startService('postgres', { DATABASE_URL: database.url })
  await api.task(await api.user())
  let writing = 0
  let most = 0
  const parts: string[] = []
  await exportAll(api.driver, {
    async write(data) {
      most = Math.max(most, ++writing)
      await Bun.sleep(20)
      writing--
      parts.push(String(data))
    },
  })
  await api.stop()
  await database.drop()

  expect(most).toBe(1)
  expect(parts.map(part => JSON.parse(part).type)).toEqual(['header', 'user', 'task', 'end'])
})

describe('the lines of a file', () => {
  const loader = { async add() {} } as unknown as Loader
  async function read(chunks: Iterable<Uint8Array>) {
    await importFile(
      (async function* () {
        yield* chunks
      })(),
      loader,
    )
  }
  const bytes = (lines: string[]) => [Buffer.from(lines.join(''))]
  const eve = crypto.randomUUID()
  const good = exportOf(userLine(eve), taskLine(eve, 1))

  test('without an end are not read to their end', async () => {
    let chunks = 0
    function* endless() {
      for (; chunks < 20; chunks++) yield Buffer.alloc(1_000_000, 'x')
    }
    await expect(read(endless())).rejects.toThrow('line 1: longer than 1048576 bytes')
    expect(chunks).toBeLessThan(5)
  })

  test('must be UTF-8, however they are cut', async () => {
    const whole = Buffer.from(good.join('').replace('Task 1', 'Täsk 1'))
    await read([...whole].map(byte => Uint8Array.of(byte)))
    whole[whole.indexOf('ä')] = 0xff
    await expect(read([whole])).rejects.toThrow('not UTF-8')
    await expect(read([...bytes(good), Uint8Array.of(0xc3)])).rejects.toThrow('not UTF-8')
  })

  test('may be of any format so far', async () => {
    const [head, ...rest] = good as [string, ...string[]]
    for (const version of [1, 2, 3]) {
      await read(bytes([head.replace('"version":2', `"version":${version}`), ...rest]))
    }
  })

  test('give a user versions that no client has seen: above those of the file and those of now', async () => {
    const begun = Date.now() * 1000
    const versions: number[] = []
    const noting = {
      add: async (rows: readonly NewRow[]) =>
        void versions.push(...rows.flatMap(({ version }) => version ?? [])),
    } as unknown as Loader
    const last = 2 ** 52
    const lines = exportOf(userLine(eve), userLine(crypto.randomUUID(), { last_version: last }))
    await importFile(new Blob([lines.join('')]).stream() as never, noting)

    expect(versions).toEqual([expect.any(Number), last + 2 ** 32])
    // Another import of the same file, into another database, has others.
    expect(versions[0]).toBeWithin(begun, Date.now() * 1000 + 1)
  })

  test('are named together where several of a batch are wrong', async () => {
    const [head, user, task] = good as [string, string, string]
    const wrong = task.replace('"priority":0', '"priority":"x"')
    await expect(read(bytes([head, user, wrong, task, wrong]))).rejects.toThrow(
      /^line 3: priority: .+\nline 5: priority: .+$/,
    )
  })

  test.each([
    ['title', undefined, 'Field required'],
    ['title', null, 'Input should be a valid string'],
    ['priority', null, 'Input should be a whole number'],
  ])('hold what every row has: a %s of %p is named', async (name, value, message) => {
    const [head] = good as [string]
    const task = JSON.stringify(taskLine(eve, 1, { [name]: value }))
    await expect(read(bytes([head, `${task}\n`, `{"type":"end"}\n`]))).rejects.toThrow(
      `line 2: ${name}: ${message}`,
    )
    await read(bytes(exportOf(userLine(eve), taskLine(eve, 1, { priority: undefined, due_at: null }))))
  })

  test('hold hashes of bcrypt, of a cost that a sign-in can bear', async () => {
    const hashed = (prefix: string) =>
      read(bytes(exportOf(userLine(eve, { password_hash: `${prefix}${'a'.repeat(53)}` }))))

    for (const right of ['$2a$04$', '$2x$10$', '$2y$12$', '$2b$16$']) await hashed(right)
    for (const wrong of ['$2b$03$', '$2b$17$', '$2c$12$', '$1$', '$2b$12$a']) {
      await expect(hashed(wrong)).rejects.toThrow('line 2: password_hash: String should be a bcrypt hash')
    }
  })

  test('end with the line that counts them, and it counts each kind', async () => {
    await read(bytes(good))
    await expect(read(bytes([...good, good[1]!]))).rejects.toThrow('line 5: nothing may follow')
    const [head, user, task] = good as [string, string, string]
    for (const wrong of [{ user: 2 }, { user: undefined }, { task: 2 }, { tombstone: 1 }]) {
      const end = `${JSON.stringify({ type: 'end', user: 1, task: 1, tombstone: 0, ...wrong })}\n`
      await expect(read(bytes([head, user, task, end]))).rejects.toThrow('not complete')
    }
  })
})

test.each([
  [['file', '--from', 'postgres://h/d'], 'name a FILE or use --from, not both'],
  [['--from', 'mysql://h/d'], 'the address to import from must look like postgres://user@host:5432/name'],
  [
    ['--from', 'postgres://h/d e'],
    'the address to import from must look like postgres://user@host:5432/name',
  ],
])('import %j is wrong use', async (args, message) => {
  expect(await runCommand(['import', ...args])).toMatchObject({ exitCode: 2, stderr: `${message}\n` })
})

test('a file that is not there is reported in one line', async () => {
  const place = await newPlace('embedded')
  const file = join(place.folder, 'missing.ndjson')

  expect(await runCommand(['import', file], place)).toMatchObject({
    exitCode: 1,
    stderr: `there is no file ${file}\n`,
  })
  expect(await runCommand(['import', place.folder], place)).toMatchObject({
    exitCode: 1,
    stderr: `${place.folder} is a folder\n`,
  })
  expect(existsSync(place.env.DATA_DIR!)).toBe(false)
  await place.remove()
})
