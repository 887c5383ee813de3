import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { createDb } from '../src/db/drizzle.ts'
import { noPrecondition } from '../src/http/entity-tag.ts'
import { AppError } from '../src/lib/errors.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createListService } from '../src/modules/lists/service.ts'
import type { Changes, Task } from '../src/modules/tasks/model.ts'
import { withEffort } from './support/effort.ts'
import { onBothDatabases, type Service } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

/** A task as the rules of lists and parents see it; `trashed` is the moment. */
interface Entry {
  list: string | null
  parent: string | null
  trashed: number | undefined
}

/** What the rules say, in the simplest form. Each change returns the code of its error, or nothing. */
class Model {
  readonly tasks = new Map<string, Entry>()
  readonly lists = new Set<string>()
  #clock = 0

  /** The tasks that match. */
  where = (matches: (task: Entry, id: string) => boolean) =>
    [...this.tasks].filter(([id, task]) => matches(task, id))
  isLive = (id: string) => this.tasks.has(id) && this.tasks.get(id)!.trashed === undefined
  childrenOf = (id: string) => this.where(({ parent, trashed }) => parent === id && trashed === undefined)

  /** Whether a task (a new one without an id) may have this list and this parent. */
  refusal(id: string | undefined, { list, parent }: Pick<Entry, 'list' | 'parent'>): string | undefined {
    if (list !== null && !this.lists.has(list)) return 'list_not_found'
    const before = id === undefined ? null : this.tasks.get(id)!.parent
    if (parent === null || parent === before) return undefined
    if (!this.isLive(parent)) return 'parent_not_found'
    const hasParent = this.tasks.get(parent)!.parent !== null
    if (hasParent || parent === id || (id !== undefined && this.childrenOf(id).length > 0))
      return 'parent_nested'
    return undefined
  }

  trash(ids: string[]) {
    const moment = ++this.#clock
    for (const [id, task] of this.where(({ trashed }) => trashed === undefined))
      if (ids.includes(id) || (task.parent !== null && ids.includes(task.parent))) task.trashed = moment
  }

  restore(id: string) {
    const { trashed, parent } = this.tasks.get(id)!
    if (trashed === undefined) return
    const isParent = parent !== null && this.isLive(parent) && this.tasks.get(parent)!.parent === null
    for (const [key, task] of this.where(task => task.trashed === trashed))
      if (key === id || task.parent === id) task.trashed = undefined
    this.tasks.get(id)!.parent = isParent ? parent : null
  }

  erase(id: string) {
    for (const [key] of this.where((task, key) => key === id || task.parent === id)) this.tasks.delete(key)
  }

  empty() {
    for (const [id] of this.where(({ trashed }) => trashed !== undefined)) this.tasks.delete(id)
  }

  deleteList(list: string, becomes: 'keep' | 'trash') {
    const inside = this.where(task => task.list === list)
    for (const [, task] of inside) task.list = null
    if (becomes === 'trash') this.trash(inside.filter(([id]) => this.isLive(id)).map(([id]) => id))
    this.lists.delete(list)
  }
}

/** A client that knows nothing but the changes. */
class Copy {
  readonly tasks = new Map<string, Task>()
  readonly lists = new Map<string, Changes['lists'][number]>()
  cursor: string | undefined

  async sync(tasks: ReturnType<typeof serviceOn>, user: UserId, limit: number) {
    for (let more = true; more; ) {
      const since = this.cursor === undefined ? {} : { since: this.cursor }
      const page: Changes = JSON.parse((await tasks.changes(user, { limit, ...since })).json)
      for (const task of page.tasks) this.tasks.set(task.id, task)
      for (const id of page.deleted) this.tasks.delete(id)
      for (const list of page.lists) this.lists.set(list.id, list)
      for (const id of page.deleted_lists) this.lists.delete(id)
      this.cursor = page.cursor
      more = page.has_more
    }
  }
}

/** Few, so that a history comes back to the same tasks. */
const which = fc.nat({ max: 4 })
/** Of a list or a parent: none, one that is there, or one that is not. */
const reference = fc.oneof(
  { weight: 3, arbitrary: fc.constant(null) },
  { weight: 6, arbitrary: which },
  { weight: 1, arbitrary: fc.constant('unknown' as const) },
)
const place = fc.record({ list: reference, parent: reference })
const kind = <Name extends string>(name: Name) => ({ do: fc.constant(name) })
const step = fc.oneof(
  { weight: 1, arbitrary: fc.record(kind('createList')) },
  {
    weight: 2,
    arbitrary: fc.record({
      ...kind('deleteList'),
      which,
      becomes: fc.constantFrom('keep' as const, 'trash' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ ...kind('create'), place }) },
  { weight: 4, arbitrary: fc.record({ ...kind('move'), which, place }) },
  { weight: 3, arbitrary: fc.record({ ...kind('trash'), which }) },
  { weight: 3, arbitrary: fc.record({ ...kind('restore'), which }) },
  { weight: 1, arbitrary: fc.record({ ...kind('erase'), which }) },
  { weight: 1, arbitrary: fc.record(kind('empty')) },
  {
    weight: 1,
    arbitrary: fc.record({ ...kind('batch'), of: fc.array(which, { minLength: 1, maxLength: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ ...kind('sync'), limit: fc.integer({ min: 1, max: 4 }) }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Two lists; two parents, with two children and one, in both lists and in none. */
const beginning: Step[] = [
  { do: 'createList' },
  { do: 'createList' },
  ...[
    { list: 0, parent: null },
    { list: 1, parent: null },
    { list: 0, parent: 0 },
    { list: null, parent: 0 },
    { list: 0, parent: 1 },
  ].map(place => ({ do: 'create' as const, place })),
]

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    error => (error instanceof AppError ? error.code : error),
  )

onBothDatabases('any sequence of changes of lists and families', (api: Service) => {
  test('leaves lists, tasks, trash and changes in agreement with the rules', async () => {
    const tasks = serviceOn(api)
    const lists = createListService({ db: createDb(api.driver), secretKey: 'a secret for cursors and ids' })

    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), async steps => {
        const user = (await api.user()).id
        const model = new Model()
        const copy = new Copy()
        for (const step of [...beginning, ...steps]) await carryOut(step, user, model, copy)
        await copy.sync(tasks, user, 3)
        await agree(user, model, copy)
      }),
      { numRuns: withEffort(30), endOnFailure: true },
    )

    async function carryOut(step: Step, user: UserId, model: Model, copy: Copy) {
      const pick = (ids: Iterable<string>, which: number) => {
        const all = [...ids]
        return all[which % Math.max(1, all.length)] ?? crypto.randomUUID()
      }
      const refer = (ids: Iterable<string>, to: number | null | 'unknown') =>
        to === 'unknown' ? crypto.randomUUID() : ([...ids][to ?? -1] ?? null)
      const placeOf = ({
        list,
        parent,
      }: {
        list: number | null | 'unknown'
        parent: number | null | 'unknown'
      }) => ({
        list: refer(model.lists, list),
        parent: refer(model.tasks.keys(), parent),
      })
      const id = 'which' in step ? pick(model.tasks.keys(), step.which) : ''

      if (step.do === 'createList') {
        model.lists.add((await lists.create(user, { name: 'list' })).id)
      } else if (step.do === 'deleteList') {
        const list = pick(model.lists, step.which)
        const code = await codeOf(lists.remove(user, list, step.becomes, noPrecondition))
        expect(code).toBe(model.lists.has(list) ? undefined : 'list_not_found')
        if (!code) model.deleteList(list, step.becomes)
      } else if (step.do === 'create') {
        const place = placeOf(step.place)
        const id = crypto.randomUUID()
        const input = { id, title: 'task', list_id: place.list, parent_id: place.parent }
        const refusal = model.refusal(undefined, place)
        expect(await codeOf(tasks.create(user, input))).toBe(refusal)
        if (!refusal) model.tasks.set(id, { ...place, trashed: undefined })
      } else if (step.do === 'move') {
        const place = placeOf(step.place)
        const work = tasks.update(user, id, { list_id: place.list, parent_id: place.parent }, noPrecondition)
        if (!model.isLive(id)) return expect(await codeOf(work)).toBe('task_not_found')
        const refusal = model.refusal(id, place)
        expect(await codeOf(work)).toBe(refusal)
        if (!refusal) Object.assign(model.tasks.get(id)!, place)
      } else if (step.do === 'trash') {
        const code = await codeOf(tasks.remove(user, id, false, noPrecondition))
        expect(code).toBe(model.isLive(id) ? undefined : 'task_not_found')
        if (!code) model.trash([id])
      } else if (step.do === 'restore') {
        const code = await codeOf(tasks.restore(user, id, noPrecondition))
        expect(code).toBe(model.tasks.has(id) ? undefined : 'task_not_found')
        if (!code) model.restore(id)
      } else if (step.do === 'erase') {
        const code = await codeOf(tasks.remove(user, id, true, noPrecondition))
        expect(code).toBe(model.tasks.has(id) ? undefined : 'task_not_found')
        if (!code) model.erase(id)
      } else if (step.do === 'empty') {
        await tasks.emptyTrash(user)
        model.empty()
      } else if (step.do === 'batch') {
        const ids = [...new Set(step.of.map(which => pick(model.tasks.keys(), which)))]
        const code = await codeOf(
          tasks.batch(
            user,
            ids.map(id => ({ op: 'delete', id })),
          ),
        )
        expect(code).toBe(ids.every(model.isLive) ? undefined : 'task_not_found')
        if (!code) model.trash(ids)
      } else {
        await copy.sync(tasks, user, step.limit)
      }
    }

    async function agree(user: UserId, model: Model, copy: Copy) {
      const rows = async (page: Promise<{ items: string }>) => JSON.parse(`[${(await page).items}]`)
      const live: Task[] = await rows(tasks.list(user, { limit: 200 }))
      const trash: Task[] = await rows(tasks.trash(user, { limit: 200 }))
      const allLists: Changes['lists'] = await rows(lists.list(user, { limit: 200, counts: true }))

      const placesOf = (tasks: Task[]) =>
        new Map(tasks.map(({ id, list_id, parent_id }) => [id, { list: list_id, parent: parent_id }]))
      const expected = model.where(({ trashed }) => trashed === undefined)
      expect(placesOf(live)).toEqual(
        new Map(expected.map(([id, { list, parent }]) => [id, { list, parent }])),
      )
      const inTrash = model.where(({ trashed }) => trashed !== undefined)
      expect(new Set(trash.map(({ id }) => id))).toEqual(new Set(inTrash.map(([id]) => id)))
      expect(new Map(allLists.map(({ id, total }) => [id, total]))).toEqual(
        new Map([...model.lists].map(id => [id, expected.filter(([, { list }]) => list === id).length])),
      )
      expect(copy.tasks).toEqual(new Map(live.map(task => [task.id, task])))
      expect([...copy.lists.keys()].toSorted()).toEqual([...model.lists].toSorted())
      const versions = await api.sql(
        `select version from tasks where user_id = $1 union all select version from lists where user_id = $1`,
        [user],
      )
      expect(new Set(versions.flat()).size).toBe(versions.length)
    }
  }, 120_000)
})
