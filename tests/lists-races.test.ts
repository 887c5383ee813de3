import { expect, test } from 'bun:test'
import type { Answer, User } from './support/harness.ts'
import { serviceWithMeetings, versionsOf } from './support/meet.ts'

const { api, meeting } = serviceWithMeetings()

/** Requests of one user that all wait for the user's versions, and then run in this order. Returns their statuses and codes. */
async function race(user: User, ...calls: (() => Promise<Answer>)[]) {
  const answers = await meeting.meet(versionsOf(user), calls)
  return answers.map(({ status, body }) => [status, body?.code].filter(Boolean).join(' '))
}

async function begin() {
  const ada = await api.user()
  const { token } = ada
  const { body: list } = await api.post('/lists', { token, json: { name: 'list' } })
  const [parent, task] = [await api.task(ada, { title: 'parent' }), await api.task(ada, { title: 'task' })]
  const post =
    (path: string, json: object = {}) =>
    () =>
      api.post(path, { token, json })
  const patch = (path: string, json: object) => () => api.patch(path, { token, json })
  const remove = (path: string) => () => api.delete(path, { token })
  const live = async () => (await api.get('/tasks?sort=created_at', { token })).body
  return { ada, list, parent, task, post, patch, remove, live }
}

const create = { title: 'new' }

test('no task is put into a list that is deleted at the same time', async () => {
  const { ada, list, task, post, patch, remove, live } = await begin()

  const results = await race(
    ada,
    remove(`/lists/${list.id}`),
    post('/tasks', { ...create, list_id: list.id }),
    post('/tasks', { ...create, id: crypto.randomUUID(), list_id: list.id }),
    patch(`/tasks/${task.id}`, { list_id: list.id }),
    post('/tasks/batch', { operations: [{ op: 'create', task: { ...create, list_id: list.id } }] }),
  )

  expect(results).toEqual(['204', ...Array(4).fill('422 list_not_found')])
  expect(await live()).toMatchObject([{ title: 'parent' }, { title: 'task', list_id: null }])
})

test.each(['', '?permanent=true'])(
  'no child is given to a task that is deleted%s at the same time',
  async query => {
    const { ada, parent, task, post, patch, remove, live } = await begin()

    const results = await race(
      ada,
      remove(`/tasks/${parent.id}${query}`),
      post('/tasks', { ...create, parent_id: parent.id }),
      patch(`/tasks/${task.id}`, { parent_id: parent.id }),
      post('/tasks/batch', { operations: [{ op: 'update', id: task.id, task: { parent_id: parent.id } }] }),
    )

    expect(results).toEqual(['204', ...Array(3).fill('422 parent_not_found')])
    expect(await live()).toMatchObject([{ title: 'task', parent_id: null }])
  },
)

type Begun = Awaited<ReturnType<typeof begin>>

interface Taking {
  name: string
  write: (begun: Begun) => () => Promise<Answer>
  removed: (begun: Begun) => string
  status: string
  left: string[]
}

const takings: Taking[] = [
  {
    name: 'a list that is deleted takes along the task that is created in it',
    write: ({ post, list }) => post('/tasks', { ...create, list_id: list.id }),
    removed: ({ list }) => `/lists/${list.id}?tasks=trash`,
    status: '201',
    left: ['parent', 'task'],
  },
  {
    name: 'a list that is deleted takes along the task that is put into it',
    write: ({ patch, task, list }) => patch(`/tasks/${task.id}`, { list_id: list.id }),
    removed: ({ list }) => `/lists/${list.id}?tasks=trash`,
    status: '200',
    left: ['parent'],
  },
  {
    name: 'a task that goes to the trash takes along the child that is created',
    write: ({ post, parent }) => post('/tasks', { ...create, parent_id: parent.id }),
    removed: ({ parent }) => `/tasks/${parent.id}`,
    status: '201',
    left: ['task'],
  },
  {
    name: 'a task that goes to the trash takes along the task that becomes its child',
    write: ({ patch, task, parent }) => patch(`/tasks/${task.id}`, { parent_id: parent.id }),
    removed: ({ parent }) => `/tasks/${parent.id}`,
    status: '200',
    left: [],
  },
]

// Two at a time: of more that wait for a lock, PostgreSQL only says who is first.
test.each(takings)('$name at the same time', async ({ write, removed, status, left }) => {
  const begun = await begin()

  const results = await race(begun.ada, write(begun), begun.remove(removed(begun)))

  expect(results).toEqual([status, '204'])
  expect((await begun.live()).map(({ title }: { title: string }) => title)).toEqual(left)
})

test('no task becomes parent and child at the same time', async () => {
  const { ada, parent, task, post, patch } = await begin()

  const results = await race(
    ada,
    patch(`/tasks/${task.id}`, { parent_id: parent.id }),
    patch(`/tasks/${parent.id}`, { parent_id: task.id }),
    post('/tasks', { ...create, parent_id: task.id }),
  )

  expect(results).toEqual(['200', '422 parent_nested', '422 parent_nested'])
})

test('of two children that meet, one is the 200th and the other is one too many', async () => {
  const { ada, parent, post } = await begin()
  const children = Array.from({ length: 100 }, () => ({
    op: 'create',
    task: { ...create, parent_id: parent.id },
  }))
  await post('/tasks/batch', { operations: children })()
  await post('/tasks/batch', { operations: children.slice(1) })()
  const child = post('/tasks', { ...create, parent_id: parent.id })

  expect(await race(ada, child, child)).toEqual(['201', '422 too_many_children'])
})

test('of two creations of the 500th list, one is refused; of two of one id, both return it', async () => {
  const { ada, post } = await begin()
  const insert = `insert into lists (id, user_id, name, version) select gen_random_uuid(), $1, 'x', 1000 + i from generate_series(1, 498) i`
  await api.sql(insert, [ada.id])
  await api.sql('update user_versions set last_version = 2000 where user_id = $1', [ada.id])
  const same = post('/lists', { id: crypto.randomUUID(), name: 'last' })

  expect(await race(ada, same, same, post('/lists', { name: 'x' }))).toEqual([
    '201',
    '201',
    '409 too_many_lists',
  ])
})

test('a list that is deleted into the trash does not part a task from the children that it finds there', async () => {
  const { ada, list, parent, task, post, patch, remove, live } = await begin()
  await patch(`/tasks/${parent.id}`, { list_id: list.id })()
  await patch(`/tasks/${task.id}`, { parent_id: parent.id })()
  let deleteBoth: () => Promise<unknown>

  // Another writer, whose turn is first, deletes both at a moment after the one at which the list's transaction has begun.
  const [answer] = await meeting.meet(
    sql => {
      deleteBoth = () => sql`
        with taken as (
          update user_versions set last_version = last_version + 2 where user_id = ${ada.id} returning last_version
        )
        update tasks set deleted_at = statement_timestamp(), version = last_version - (id = ${parent.id})::int
        from taken where user_id = ${ada.id}`
      return versionsOf(ada)(sql)
    },
    [remove(`/lists/${list.id}?tasks=trash`)],
    () => deleteBoth(),
  )
  await post(`/tasks/${parent.id}/restore`)()

  expect(answer!.status).toBe(204)
  expect((await live()).map(({ title }: { title: string }) => title)).toEqual(['parent', 'task'])
})
