import { expect, test } from 'bun:test'
import { tokenize } from '../src/modules/tasks/search.ts'
import { onBothDatabases, type Service, type User } from './support/harness.ts'

/** The first title that a search finds, and how many tasks it finds in all. */
const find = async (api: Service, { token }: User, q: string, more = '') => {
  const { status, body, headers } = await api.get(
    `/tasks?limit=1&total=true&q=${encodeURIComponent(q)}${more}`,
    { token },
  )
  expect(status).toBe(200)
  return { title: body[0]?.title, total: Number(headers.get('x-total-count')) }
}

const addMany = (api: Service, { token }: User, titles: string[]) =>
  api.post('/tasks/batch', {
    token,
    json: { operations: titles.map(title => ({ op: 'create', task: { title } })) },
  })

onBothDatabases('a search', api => {
  const numbered = (count: number) => Array.from({ length: count }, (_, i) => `task ${i}`)

  test('finds the tasks of one user and of no other', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    await addMany(api, ada, ['hers', ...numbered(20)])
    await addMany(api, bob, ['his', ...numbered(20)])

    expect(await find(api, ada, 'hers')).toEqual({ title: 'hers', total: 1 })
    expect(await find(api, bob, 'hers')).toEqual({ title: undefined, total: 0 })
    expect(await find(api, ada, 'task')).toEqual({ title: 'task 19', total: 20 })
  })

  test('knows every change at once', async () => {
    const ada = await api.user()
    const { token } = ada
    const made = (await addMany(api, ada, ['one', 'two', 'three', 'four', ...numbered(20)])).body
    const [one, two, three, four] = made.results.map((result: { task: object }) => result.task)

    await api.patch(`/tasks/${one.id}`, { token, json: { title: 'eins' } })
    await api.patch(`/tasks/${one.id}`, { token, json: { description: 'again one' } })
    await api.patch(`/tasks/${two.id}`, { token, json: { title: 'zwei' } })
    await api.delete(`/tasks/${three.id}`, { token })
    await api.delete(`/tasks/${four.id}?permanent=true`, { token })

    expect(await find(api, ada, 'one')).toEqual({ title: 'eins', total: 1 })
    expect(await find(api, ada, 'eins')).toEqual({ title: 'eins', total: 1 })
    for (const q of ['two', 'three', 'four']) {
      expect(await find(api, ada, q)).toEqual({ title: undefined, total: 0 })
    }
    await api.post(`/tasks/${three.id}/restore`, { token })
    expect(await find(api, ada, 'three')).toEqual({ title: 'three', total: 1 })
  })

  test('finds words however long they are and whatever their letters', async () => {
    const ada = await api.user()
    const long = 'x'.repeat(100)
    const titles = [
      `${long} one`,
      `${long}y two`,
      '买牛奶 今天',
      'ОТЧЁТ сдать',
      "it's",
      'feed the 🦆',
      'to 🇩🇪',
      '٣ items',
      'ซื้อนม',
    ]
    await addMany(api, ada, titles)
    await api.task(ada, { title: 'many', description: Array.from({ length: 400 }, (_, i) => i).join(' ') })
    await api.task(ada, { title: 'letters', description: '木'.repeat(1000) + '林'.repeat(1000) })
    await addMany(api, ada, numbered(20))

    for (const [q, title, total] of [
      [long, `${long}y two`, 2],
      [`${long}y`, `${long}y two`, 1],
      [`${long}z`, undefined, 0],
      ['牛奶', '买牛奶 今天', 1],
      ['牛今', undefined, 0],
      ['отчет', 'ОТЧЁТ сдать', 1],
      ["it's", "it's", 1],
      ["'", undefined, 0],
      ['🦆', 'feed the 🦆', 1],
      // A flag is two letters of its own.
      ['🇩🇪', 'to 🇩🇪', 1],
      ['🇩🇰', undefined, 0],
      ['٣', '٣ items', 1],
      // Thai has no spaces between words: its letters are found wherever they stand.
      ['นม', 'ซื้อนม', 1],
      ['399 many', 'many', 1],
      ['木林', 'letters', 1],
      ['林木', undefined, 0],
      ['a '.repeat(100), undefined, 0],
      ['one two', undefined, 0],
    ] as const) {
      expect([q, await find(api, ada, q)]).toEqual([q, { title, total }])
      expect((await find(api, ada, q, '&sort=title')).total).toBe(total)
    }
  })
})

test('of the marks on a letter eight count, and of a text four thousand characters', () => {
  const vowelSign = '\u093f'
  expect(tokenize(`क${vowelSign.repeat(30)} x`)).toBe(` क${vowelSign.repeat(8)} x`)
  // One character, which stands for eighteen.
  expect(tokenize('ﷺ'.repeat(2000)).length).toBeWithin(3990, 4002)
})
