import { describe, expect, test } from 'bun:test'
import { Value } from '@sinclair/typebox/value'
import fc from 'fast-check'
import { toInstant } from '../src/db/tables.ts'
import { noPrecondition } from '../src/http/entity-tag.ts'
import { createCursors } from '../src/lib/cursor.ts'
import { AppError } from '../src/lib/errors.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { fields as taskFields, taskStatuses } from '../src/modules/tasks/fields.ts'
import {
  type Changes,
  type ListQuery,
  type Operation,
  type Task,
  type TaskUpdate,
  type TrashedTask,
  task,
} from '../src/modules/tasks/model.ts'
import { ifVersion, type Serialized } from '../src/modules/tasks/owned.ts'
import { tokenize } from '../src/modules/tasks/search.ts'
import type { TaskService } from '../src/modules/tasks/service.ts'
import { withEffort } from './support/effort.ts'
import { onBothDatabases, type Service } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

describe('a cursor', () => {
  const cursors = createCursors('a secret key for tests')
  const anyText = fc.string({ unit: 'binary' })

  test('verifies to what was signed', () => {
    fc.assert(
      fc.property(anyText, anyText, anyText, (kind, user, content) => {
        expect(cursors.verify(kind, user, cursors.sign(kind, user, content))).toBe(content)
      }),
    )
  })

  test('verifies for no other user, no other list and under no other key', () => {
    const others = createCursors('another secret key')
    fc.assert(
      fc.property(anyText, anyText, anyText, (a, b, content) => {
        fc.pre(a !== b)
        expect(cursors.verify('list', b, cursors.sign('list', a, content))).toBeUndefined()
        expect(cursors.verify(b, 'user', cursors.sign(a, 'user', content))).toBeUndefined()
        expect(others.verify('list', a, cursors.sign('list', a, content))).toBeUndefined()
      }),
    )
  })

  test('does not verify when anything in it was changed', () => {
    const letter = fc.constantFrom(
      ...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ \n%',
    )
    fc.assert(
      fc.property(anyText, fc.nat(), letter, fc.constantFrom(0, 1), (content, at, other, removed) => {
        const cursor = cursors.sign('list', 'user', content)
        const place = at % (cursor.length + 1)
        const changed = cursor.slice(0, place) + other + cursor.slice(place + removed)
        fc.pre(changed !== cursor)
        expect(cursors.verify('list', 'user', changed)).toBeUndefined()
      }),
    )
  })

  test('has a seal of sixteen bytes, more than can be tried', () => {
    expect(Buffer.from(cursors.sign('list', 'user', 'x'), 'base64url')).toHaveLength(17)
  })

  test('cannot be made up', () => {
    fc.assert(
      fc.property(anyText, text => {
        expect(cursors.verify('list', 'user', text)).toBeUndefined()
      }),
    )
  })
})

test('the words of words are the same words, and no text of any kind makes anything but words', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), text => {
      const words = tokenize(text)
      expect(tokenize(words)).toBe(words)
      expect(words).toMatch(/^( [^\s%_\\|]+)*$/u)
    }),
  )
})

/** What the rules of tasks say, in the simplest form: everything in one map. */
class Model {
  readonly all = new Map<string, { task: Task; trashed: number | undefined }>()
  /** The ids of tasks that were deleted permanently. */
  readonly erased = new Set<string>()
  /** Ids for tasks that the client names itself. */
  readonly ownIds = Array.from({ length: 4 }, () => crypto.randomUUID() as string)
  #clock = 0

  get live() {
    return [...this.all.values()].filter(({ trashed }) => trashed === undefined).map(({ task }) => task)
  }
  get trash() {
    return [...this.all.values()]
      .filter(({ trashed }) => trashed !== undefined)
      .sort((a, b) => b.trashed! - a.trashed!)
      .map(({ task }) => task)
  }
  isLive = (id: string) => this.all.has(id) && this.all.get(id)!.trashed === undefined
  put = (task: Task) => this.all.set(task.id, { task, trashed: undefined })
  moveToTrash(id: string) {
    const entry = this.all.get(id)!
    this.all.set(id, { ...entry, trashed: ++this.#clock })
  }
  empty() {
    for (const [id, { trashed }] of this.all) if (trashed !== undefined) this.erase(id)
  }
  erase(id: string): boolean {
    if (this.all.has(id)) this.erased.add(id)
    return this.all.delete(id)
  }

  /** The status of each operation of a batch, one after the other, when those that fail change nothing. */
  statusesOf(operations: Operation[]): number[] {
    const live = new Set(this.live.map(({ id }) => id))
    const used = new Set([...this.all.keys(), ...this.erased])
    return operations.map(({ op, id }) => {
      if (op === 'create') {
        if (id === undefined || live.has(id)) return 201
        if (used.has(id)) return 409
        live.add(id)
        used.add(id)
        return 201
      }
      if (!live.has(id)) return 404
      if (op === 'delete') live.delete(id)
      return op === 'delete' ? 204 : 200
    })
  }
}

/** A client that knows nothing but the changes. */
class Copy {
  readonly tasks = new Map<string, Task>()
  cursor: string | undefined

  async sync(tasks: Pick<ReturnType<typeof serviceOf>, 'changes'>, user: UserId, limit: number) {
    for (let more = true; more; ) {
      const { has_more, cursor, ...page } = await tasks.changes(user, {
        limit,
        ...(this.cursor !== undefined && { since: this.cursor }),
      })
      for (const task of page.tasks) this.tasks.set(task.id, task)
      for (const id of page.deleted) this.tasks.delete(id)
      this.cursor = cursor
      more = has_more
    }
  }
}

const fields = fc.record(
  {
    title: fc.constantFrom('a', 'b', '🦆', 'Straße'),
    description: fc.constantFrom(null, 'x', ''),
    status: fc.constantFrom('pending' as const, 'in_progress' as const, 'completed' as const),
    priority: fc.integer({ min: 0, max: 4 }),
    due_at: fc.constantFrom(null, '2020-01-01T00:00:00.000000Z', '2999-01-01T00:00:00.000001Z'),
    tags: fc.uniqueArray(fc.constantFrom('home', 'work', '"', '{,}')),
    position: fc.constantFrom('', 'a', 'B'),
  },
  { requiredKeys: [] },
)

const which = fc.nat({ max: 7 })
const operation = fc.oneof(
  fc.record({ op: fc.constant('create' as const), which, fields, hasOwnId: fc.boolean() }),
  fc.record({ op: fc.constant('update' as const), which, fields }),
  fc.record({ op: fc.constant('delete' as const), which }),
)
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('create' as const), fields }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('createOnce' as const), which, fields }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('update' as const), which, fields, stale: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('trash' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('restore' as const), which }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('erase' as const), which }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('empty' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('batch' as const),
      isAtomic: fc.boolean(),
      operations: fc.array(operation, { minLength: 1, maxLength: 8 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('search' as const), q: fc.constantFrom('a', 'x', 'strasse') }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('sync' as const), limit: fc.integer({ min: 1, max: 4 }) }),
  },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

const newestFirst = (a: Task, b: Task) => (`${a.created_at} ${a.id}` < `${b.created_at} ${b.id}` ? 1 : -1)

onBothDatabases('any sequence of changes', (api: Service) => {
  test('leaves list, trash, counts, search and changes in agreement with the rules', async () => {
    const tasks = serviceOf(api)

    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), async steps => {
        const user = (await api.user()).id
        const model = new Model()
        const copy = new Copy()
        for (const step of steps) await carryOut(step, user, model, copy)
        await copy.sync(tasks, user, 3)

        await agree(user, model, copy)
      }),
      { numRuns: withEffort(30), endOnFailure: true },
    )

    async function carryOut(step: Step, user: UserId, model: Model, copy: Copy) {
      const ids = [...model.all.keys()]
      const idOf = (which: number) => ids[which % Math.max(1, ids.length)] ?? crypto.randomUUID()
      const statusOf = (work: Promise<unknown>) =>
        work.then(
          () => 200,
          error => (error instanceof AppError ? error.status : error),
        )

      if (step.do === 'create') {
        const made = await tasks.create(user, { title: 'new', ...step.fields })
        expect(made).toMatchObject(step.fields)
        expect(made.completed_at !== null).toBe(made.status === 'completed')
        model.put(made)
      } else if (step.do === 'createOnce') {
        const id = model.ownIds[step.which % 4]!
        const work = tasks.create(user, { id, title: 'once', ...step.fields })
        if (!model.isLive(id) && (model.all.has(id) || model.erased.has(id)))
          return expect(await statusOf(work)).toBe(409)
        if (model.isLive(id)) return expect(await work).toEqual(model.all.get(id)!.task)
        model.put(await work)
      } else if (step.do === 'update') {
        const id = idOf(step.which)
        const before = model.all.get(id)?.task
        const version = before ? before.version - Number(step.stale) : 0
        const work = tasks.update(user, id, step.fields, ifVersion(version))
        if (!model.isLive(id)) return expect(await statusOf(work)).toBe(404)
        if (step.stale) return expect(await statusOf(work)).toBe(412)
        expectChange(before!, await work, step.fields)
        model.put(await work)
      } else if (step.do === 'trash') {
        const id = idOf(step.which)
        const status = await statusOf(tasks.remove(user, id, false, noPrecondition))
        expect(status).toBe(model.isLive(id) ? 200 : 404)
        if (model.isLive(id)) model.moveToTrash(id)
      } else if (step.do === 'restore') {
        const id = idOf(step.which)
        const work = tasks.restore(user, id, noPrecondition)
        if (!model.all.has(id)) return expect(await statusOf(work)).toBe(404)
        model.put(await work)
      } else if (step.do === 'erase') {
        const id = idOf(step.which)
        const status = await statusOf(tasks.remove(user, id, true, noPrecondition))
        expect(status).toBe(model.erase(id) ? 200 : 404)
      } else if (step.do === 'empty') {
        await tasks.emptyTrash(user)
        model.empty()
      } else if (step.do === 'batch') {
        const operations = step.operations.map((operation): Operation => {
          const { op, which } = operation
          const ownId = model.ownIds[which % 4]!
          if (op === 'create') {
            const task = { title: 'batch', ...operation.fields }
            return operation.hasOwnId ? { op, id: ownId, task } : { op, task }
          }
          const id = which < 4 ? ownId : idOf(which)
          return op === 'update' ? { op, id, task: operation.fields } : { op, id }
        })
        await sendBatch(operations, step.isAtomic, user, model)
      } else if (step.do === 'search') {
        await search(step.q, user, model)
      } else {
        await copy.sync(tasks, user, step.limit)
      }
    }

    async function sendBatch(operations: Operation[], isAtomic: boolean, user: UserId, model: Model) {
      const statuses = model.statusesOf(operations)
      const work = tasks.batch(user, operations, { isAtomic })
      const firstFailed = statuses.findIndex(status => status >= 400)
      if (isAtomic && firstFailed >= 0) {
        const error = await work.then(
          () => undefined,
          error => error,
        )
        return expect(error).toMatchObject({ index: firstFailed, status: statuses[firstFailed]! })
      }
      const outcomes = await work
      expect(outcomes.map(outcome => ('failure' in outcome ? outcome.failure.status : 0))).toEqual(
        statuses.map(status => (status >= 400 ? status : 0)),
      )
      for (const [i, outcome] of outcomes.entries()) {
        expect(outcome.op).toBe(operations[i]!.op)
        if ('failure' in outcome) expect(outcome.failure.index).toBe(i)
        if ('failure' in outcome) continue
        if (outcome.op === 'delete') model.moveToTrash(outcome.id)
        else model.put(JSON.parse(outcome.json!))
      }
    }

    async function search(q: string, user: UserId, model: Model) {
      const matching = model.live.filter(({ title, description }) =>
        [tokenize(title), tokenize(description ?? '')].some(words => words.includes(tokenize(q))),
      )
      const found: Task[] = []
      for (let next: string | undefined, isFirst = true; next || isFirst; isFirst = false) {
        const page = await tasks.list(user, { q, limit: 1, total: true, ...(next && { cursor: next }) })
        expect(page.total).toBe(matching.length)
        found.push(...page.items)
        next = page.next
      }
      expect(found).toEqual(matching.toSorted(newestFirst))
    }

    function expectChange(before: Task, after: Task, change: TaskUpdate) {
      const expected = { ...before, ...change }
      const isChanged = !Bun.deepEquals(expected, before)
      expect(after.version > before.version).toBe(isChanged)
      expect(after).toMatchObject(change)
      expect(after.completed_at !== null).toBe(after.status === 'completed')
      expect({ ...after, ...change, completed_at: null, updated_at: '', version: 0 }).toEqual({
        ...expected,
        completed_at: null,
        updated_at: '',
        version: 0,
      })
    }

    async function agree(user: UserId, model: Model, copy: Copy) {
      const byId = (list: Task[]) => new Map(list.map(task => [task.id, task]))
      const { items, total } = await tasks.list(user, { limit: 200, total: true })
      expect(items).toEqual(model.live.toSorted(newestFirst))
      expect(total).toBe(model.live.length)
      expect(copy.tasks).toEqual(byId(model.live))

      const trash = await tasks.trash(user, { limit: 200 })
      expect(trash.map(task => task.title).toSorted()).toEqual(model.trash.map(task => task.title).toSorted())
      expect(trash.map(task => task.deleted_at)).toEqual(
        trash
          .map(task => task.deleted_at)
          .toSorted()
          .toReversed(),
      )
      expect(new Set(trash.map(task => task.id))).toEqual(new Set(model.trash.map(task => task.id)))

      const count = (matches: (task: Task) => boolean) => model.live.filter(matches).length
      const isOverdue = (task: Task) =>
        task.status !== 'completed' && task.due_at !== null && task.due_at < '2021'
      expect(await tasks.stats(user)).toEqual({
        total: model.live.length,
        pending: count(task => task.status === 'pending'),
        in_progress: count(task => task.status === 'in_progress'),
        completed: count(task => task.status === 'completed'),
        overdue: count(isOverdue),
        due_today: 0,
        trash: model.trash.length,
      })
      const some = async (query: Parameters<typeof tasks.list>[1]) =>
        new Set((await tasks.list(user, { limit: 200, ...query })).items.map(task => task.id))
      const ids = (matches: (task: Task) => boolean) =>
        new Set(model.live.filter(matches).map(task => task.id))
      expect(await some({ overdue: true })).toEqual(ids(isOverdue))
      expect(await some({ q: 'strasse' })).toEqual(ids(task => task.title === 'Straße'))
      expect(await some({ tag: ['"', '{,}'] })).toEqual(
        ids(task => task.tags.includes('"') || task.tags.includes('{,}')),
      )
    }
  }, 60_000)
})

/** The service, with its answers read. */
function serviceOf(api: Service) {
  const service = serviceOn(api)
  const read = ({ version, json }: Serialized): Task => {
    const task: Task = JSON.parse(json)
    expect(task.version).toEqual(version)
    return task
  }
  return {
    ...service,
    create: async (...given: Parameters<TaskService['create']>) => read(await service.create(...given)),
    update: async (...given: Parameters<TaskService['update']>) => read(await service.update(...given)),
    restore: async (...given: Parameters<TaskService['restore']>) => read(await service.restore(...given)),
    async list(...given: Parameters<TaskService['list']>) {
      const { items, ...page } = await service.list(...given)
      return { ...page, items: JSON.parse(`[${items}]`) as Task[] }
    },
    trash: async (...given: Parameters<TaskService['trash']>): Promise<TrashedTask[]> =>
      JSON.parse(`[${(await service.trash(...given)).items}]`),
    changes: async (...given: Parameters<TaskService['changes']>): Promise<Changes> =>
      JSON.parse((await service.changes(...given)).json),
  }
}

onBothDatabases('what the database makes of a task', (api: Service) => {
  test('is what JSON.stringify would make of its columns, whatever is in them', async () => {
    const user = (await api.user()).id
    const service = serviceOn(api)
    // Every character of its own meaning in JSON, then anything that a client may send.
    const special = Array.from({ length: 160 }, (_, i) => String.fromCharCode(i + 1)).join('')
    const anyText = (maxLength: number) =>
      fc.string({ unit: 'binary', maxLength }).map(text => text.replaceAll('\0', ''))
    const anyTask = fc.record({
      title: anyText(150).map(text => `x${text}`),
      description: fc.option(fc.oneof(fc.constant(`${special}\u2028\u2029\ufeff\u{1f600}`), anyText(500))),
      status: fc.constantFrom(...taskStatuses),
      priority: fc.integer({ min: 0, max: 4 }),
      due_at: fc.option(
        fc
          .date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
          .map(date => `${date.toISOString().slice(0, -1)}120Z`),
      ),
      tags: fc.array(
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 9 }).map(tag => `t${tag}`),
        {
          maxLength: 5,
        },
      ),
      position: anyText(60),
    })

    await fc.assert(
      fc.asyncProperty(anyTask, async input => {
        const { id, json } = await service.create(user, input)
        const names = Object.keys(taskFields)
        const [row] = await api.sql(`select ${names} from tasks where id = $1`, [id])
        const isMoment = (name: string) => name.endsWith('_at')
        const expected = Object.fromEntries(
          names.map((name, i) => [name, row![i] && isMoment(name) ? toInstant(row![i] as string) : row![i]]),
        )

        expect(json).toBe(JSON.stringify(expected))
        expect(expected).toMatchObject({ ...input, tags: [...new Set(input.tags)] })
        expect(Value.Check(task, JSON.parse(json))).toBe(true)
      }),
      { numRuns: withEffort(150) },
    )
  })
})

/** What a list is by the rules: what its filters say of a task, and by what it is sorted. */
const rules: { [name in keyof ListQuery]?: (task: Task, value: never) => boolean } = {
  status: (task, value: Task['status'][]) => value.includes(task.status),
  priority: (task, value: number) => task.priority === value,
  tag: (task, value: string[]) => value.some(tag => task.tags.includes(tag)),
  q: (task, value: string) => task.title === value,
  due_before: (task, value: string) => task.due_at !== null && task.due_at < value,
  due_after: (task, value: string) => task.due_at !== null && task.due_at > value,
  created_before: (task, value: string) => task.created_at < value,
  created_after: (task, value: string) => task.created_at > value,
  updated_after: (task, value: string) => task.updated_at > value,
  overdue: task => task.status !== 'completed' && task.due_at !== null && task.due_at < '2026',
}
const sortKeys = ['created_at', 'updated_at', 'due_at', 'priority', 'title', 'status', 'position'] as const

onBothDatabases('any list', (api: Service) => {
  test('is what its filters leave, in its order, cut into pages', async () => {
    const tasks = serviceOf(api)
    const user = (await api.user()).id
    // What is old is unlike what is new.
    for (let batch = 0; batch < 4; batch++) {
      const create = (i: number): Operation => ({
        op: 'create',
        task: {
          title: ['milk', 'bread', 'Oats'][i % 3]!,
          status: (['pending', 'in_progress', 'completed'] as const)[(i >> batch) % 3]!,
          priority: i % 5,
          position: `${i % 7}`,
          tags: [['even', 'odd'][i % 2]!, `batch ${batch}`, ...(i % 25 === 0 ? ['rare'] : [])],
          due_at:
            i % 4 === 0
              ? null
              : `${['2020', '2024', '2995', '2999'][batch]}-01-${10 + (i % 9)}T00:00:00.000000Z`,
        },
      })
      await tasks.batch(
        user,
        Array.from({ length: 50 }, (_, i) => create(i)),
      )
    }
    const all: Task[] = (await tasks.list(user, { limit: 200 })).items
    const first = all.filter(task => task.tags.includes('batch 0'))
    for (const { id } of first.slice(20, 30)) await tasks.update(user, id, { title: 'Oats' }, noPrecondition)
    for (const { id } of first.slice(10, 20))
      await tasks.update(user, id, { position: 'moved' }, noPrecondition)
    all.splice(0, all.length, ...(await tasks.list(user, { limit: 200 })).items)

    const moment = fc.constantFrom(...all.flatMap(task => [task.created_at, task.updated_at]))
    const due = fc.constantFrom('2019-01-01T00:00:00Z', ...all.flatMap(task => task.due_at ?? []))
    const filters = fc.record(
      {
        status: fc.uniqueArray(fc.constantFrom('pending', 'in_progress', 'completed'), { minLength: 1 }),
        priority: fc.nat({ max: 4 }),
        tag: fc.uniqueArray(fc.constantFrom('even', 'rare', 'batch 0', 'batch 3', 'none'), { minLength: 1 }),
        q: fc.constantFrom('milk', 'Oats', 'none'),
        due_before: due,
        due_after: due,
        created_before: moment,
        created_after: moment,
        updated_after: moment,
        overdue: fc.constant(true),
      },
      { requiredKeys: [] },
    ) as fc.Arbitrary<ListQuery>
    // Few at a time: of many filters hardly anything is left.
    const someFilters = fc
      .tuple(filters, fc.shuffledSubarray(Object.keys(rules), { minLength: 1, maxLength: 3 }))
      .map(([query, names]) => Object.fromEntries(names.map(name => [name, query[name as never]])))
      .map(query => JSON.parse(JSON.stringify(query)) as ListQuery)
    const sort = fc
      .uniqueArray(fc.tuple(fc.constantFrom('', '-'), fc.constantFrom(...sortKeys)), {
        minLength: 1,
        maxLength: 3,
        selector: ([, key]) => key,
      })
      .map(keys => keys.map(([way, key]) => way + key).join())

    await fc.assert(
      fc.asyncProperty(someFilters, sort, fc.integer({ min: 1, max: 9 }), async (query, sort, limit) => {
        const matching = all.filter(task =>
          Object.entries(query).every(([name, value]) =>
            rules[name as keyof ListQuery]!(task, value as never),
          ),
        )
        const expected = sorted(matching, sort).map(task => task.id)

        const ids: string[] = []
        let cursor: string | undefined
        for (let page = 0; page < 4; page++) {
          const { items, next } = await tasks.list(user, { ...query, sort, limit, ...(cursor && { cursor }) })
          ids.push(...items.map(task => task.id))
          cursor = next
          if (!next) break
        }
        const behind = await tasks.list(user, { ...query, sort, limit, offset: 3, total: true })

        expect(ids).toEqual(expected.slice(0, 4 * limit))
        expect(cursor !== undefined).toBe(expected.length > 4 * limit)
        expect(behind.items.map(task => task.id)).toEqual(expected.slice(3, 3 + limit))
        expect(behind.total).toBe(expected.length)
      }),
      { numRuns: withEffort(300), endOnFailure: true },
    )

    function sorted(list: Task[], sort: string): Task[] {
      const keys = sort.split(',')
      const lastWay = keys.at(-1)!.startsWith('-') ? '-' : ''
      return list.toSorted((a, b) => {
        for (const key of [...keys, `${lastWay}id`]) {
          const name = key.replace('-', '') as (typeof sortKeys)[number] | 'id'
          // No date is after all dates.
          const [x, y] = [a[name] ?? 'none', b[name] ?? 'none']
          if (x !== y) return x < y === key.startsWith('-') ? 1 : -1
        }
        return 0
      })
    }
  }, 120_000)
})
