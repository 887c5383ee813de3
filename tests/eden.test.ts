import { expect, expectTypeOf, test } from 'bun:test'
import { treaty } from '@elysiajs/eden'
import type { Task, TaskCreate } from '../src/modules/tasks/model.ts'
import type { App } from '../src/server/app.ts'
import { onBothDatabases } from './support/harness.ts'

/** What decision 13 recommends: types of the service, and moments as the text that they are in JSON. */
const connect = (url: string, token: string) =>
  treaty<App>(url, { parseDate: false, headers: { authorization: `Bearer ${token}` } }).api.v1
type Api = ReturnType<typeof connect>

/** What a call of Eden returns: its data if it went well, its error by status otherwise. */
type Data<Call extends (...args: never[]) => unknown> = NonNullable<
  Awaited<ReturnType<Call>> extends { data: infer Data } ? Data : never
>
type Failure<Call extends (...args: never[]) => unknown> = NonNullable<
  Awaited<ReturnType<Call>> extends { error: infer Failure } ? Failure : never
>

test('a typed client knows each task to its last field, though it travels as ready JSON', () => {
  expectTypeOf<Data<Api['tasks']['get']>>().toEqualTypeOf<Task[]>()
  expectTypeOf<Data<Api['tasks']['post']>>().toEqualTypeOf<Task>()
  expectTypeOf<Data<ReturnType<Api['tasks']>['patch']>>().toEqualTypeOf<Task>()
  expectTypeOf<Data<Api['tasks']['changes']['get']>['tasks']>().toEqualTypeOf<Task[]>()
  type Result = Data<Api['tasks']['batch']['post']>['results'][number]
  expectTypeOf<Result['task']>().toEqualTypeOf<Task | null | undefined>()
  expectTypeOf<Result['op']>().toEqualTypeOf<'create' | 'update' | 'delete' | undefined>()
  expectTypeOf<Extract<Result['error'], { current?: unknown }>['current']>().toEqualTypeOf<Task | undefined>()
})

test('a typed client knows what a call takes', () => {
  expectTypeOf<Parameters<Api['tasks']['post']>[0]>().toEqualTypeOf<TaskCreate>()
  type Query = NonNullable<NonNullable<Parameters<Api['tasks']['get']>[0]>['query']>
  expectTypeOf<Query['status']>().toEqualTypeOf<Task['status'][] | undefined>()
  expectTypeOf<Query['limit']>().toEqualTypeOf<number | undefined>()
})

test('a typed client knows the errors of a call, also those that come from plugins', () => {
  type CreateTask = Failure<Api['tasks']['post']>
  expectTypeOf<CreateTask['status']>().toEqualTypeOf<401 | 403 | 409 | 413 | 415 | 422 | 500 | 503>()
  type Invalid = Extract<CreateTask, { status: 422 }>['value']
  expectTypeOf<Invalid['detail'][number]['loc']>().toEqualTypeOf<(string | number)[]>()
  type InvalidBatch = Extract<Failure<Api['tasks']['batch']['post']>, { status: 422 }>['value']
  expectTypeOf<InvalidBatch['index']>().toEqualTypeOf<number | undefined>()
  type Unauthenticated = Extract<CreateTask, { status: 401 }>['value']
  expectTypeOf<Unauthenticated['code']>().toEqualTypeOf<string>()
})

onBothDatabases('a typed client', api => {
  test('creates, lists and meets an error, with the types of the service', async () => {
    const { token } = await api.user()
    const { tasks } = connect(api.url, token)

    const made = await tasks.post({ title: 'Buy milk', due_at: '2026-11-24T18:00:00Z' })
    const listed = await tasks.get({ query: { status: ['pending'], limit: 10 } })
    const refused = await tasks.post({ title: '' })

    expect(made.data?.due_at).toBe('2026-11-24T18:00:00.000000Z')
    expect(listed.data).toEqual([made.data!])
    expect(refused.error?.status).toBe(422)
    if (refused.error?.status === 422) expect(refused.error.value.detail[0]?.type).toBe('string_too_short')
  })
})
