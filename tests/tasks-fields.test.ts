import { describe, expect, test } from 'bun:test'
import { toInstant } from '../src/db/tables.ts'
import { parseInstant } from '../src/lib/instant.ts'
import { searchParts, tokenize } from '../src/modules/tasks/search.ts'
import { onBothDatabases } from './support/harness.ts'

describe('a moment', () => {
  test.each([
    ['2026-11-24T18:00:00Z', '2026-11-24T18:00:00.000000Z'],
    ['2026-11-24t18:00:00.1234567z', '2026-11-24T18:00:00.123456Z'],
    [`2026-11-24T18:00:00.${'1'.repeat(32)}Z`, '2026-11-24T18:00:00.111111Z'],
    ['2026-11-24T00:30:00+05:45', '2026-11-23T18:45:00.000000Z'],
    ['2024-02-29T23:59:59.9-01:00', '2024-03-01T00:59:59.900000Z'],
    ['0001-01-01T00:00:00Z', '0001-01-01T00:00:00.000000Z'],
    ['0099-12-31T23:59:59-00:01', '0100-01-01T00:00:59.000000Z'],
    ['9999-12-31T23:59:59.999999Z', '9999-12-31T23:59:59.999999Z'],
  ])('%p is read as %p', (text, moment) => {
    expect(parseInstant(text)).toBe(moment)
  })

  test.each([
    '2026-02-31T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-10T00:00:00Z',
    '2026-11-24T24:00:00Z',
    `2026-11-24T18:00:00.${'1'.repeat(33)}Z`,
    '2026-11-24T18:60:00Z',
    '2016-12-31T23:59:60Z',
    '2026-11-24T18:00:00',
    '2026-11-24T18:00:00+24:00',
    '2026-11-24T18:00:00+0100',
    '2026-11-24 18:00:00Z',
    '2026-11-24',
    '0000-12-31T00:00:00Z',
    '0001-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    '10000-01-01T00:00:00Z',
    '+010000-01-01T00:00:00Z',
    'infinity',
    'now',
    '',
    `2026-11-24T18:00:00.${'0'.repeat(40)}Z`,
    '٢٠٢٦-11-24T18:00:00Z',
  ])('%p is none', text => {
    expect(parseInstant(text)).toBeUndefined()
  })
})

test.each([
  ['2026-11-23 05:46:14.123456+00', '2026-11-23T05:46:14.123456Z'],
  ['2026-11-23 05:46:14.12+00', '2026-11-23T05:46:14.120000Z'],
  ['2026-11-23 05:46:14+00', '2026-11-23T05:46:14.000000Z'],
])('%s of the database is %s', (stored, sent) => {
  expect(toInstant(stored)).toBe(sent)
})

describe('the words of a text', () => {
  test.each([
    ['Buy  MILK, now!', ' buy milk now'],
    ['Straße ﬁn', ' strasse fin'],
    ['Crème Brûlée', ' creme brulee'],
    ['ΟΔΟΣ οδός', ' οδοσ οδοσ'],
    ['İstanbul', ' istanbul'],
    ['GROẞ groß', ' gross gross'],
    ['שָׁלוֹם', ' שלום'],
    ['كَتَبَ', ' كتب'],
    // Every range of the marks that are left out, from its first to its last one.
    ['e\u0300\u036f', ' e'],
    ['ש\u0591\u05bd\u05bf\u05c1 ש\u05c2\u05c4\u05c5\u05c7', ' ש ש'],
    ['ك\u064b\u065f\u0670', ' ك'],
    ['买牛奶', ' 买 牛 奶'],
    ['한국어', ' 한 국 어'],
    ['がんばる', ' が ん ば る'],
    ['カタカナ', ' カ タ カ ナ'],
    ['हिन्दी भाषा', ' हिन्दी भाषा'],
    ['กขค', ' ก ข ค'],
    ['ກຂ កខ ကခ', ' ກ ຂ ក ខ က ခ'],
    // Of the marks on one letter eight are read: to bring 2,000 into order takes 10 ms.
    [`a${'\u20d0'.repeat(20)} b`, ` a${'\u20d0'.repeat(8)} b`],
    ['100% _x_', ' 100 x'],
    ['🦆 pond', ' 🦆 pond'],
    ['pond🦆🐸', ' pond 🦆 🐸'],
    ['!!!', ''],
    ['', ''],
  ])('%p: %p', (text, words) => {
    expect(tokenize(text)).toBe(words)
  })

  test('all of a long text is read', () => {
    expect(tokenize(`${'é '.repeat(995)}end`)).toBe(`${' e'.repeat(995)} end`)
    // 1,998 characters, most of which JavaScript counts twice.
    expect(tokenize(`${'𐐨𐐨 '.repeat(665)}end`)).toBe(`${' 𐐨𐐨'.repeat(665)} end`)
  })

  test('no text takes long, and none is cut in the middle of a letter', () => {
    const hard = [
      'ﷺ'.repeat(2000),
      `a${'\u0316\u0301'.repeat(1000)}`,
      '한'.repeat(2000),
      `x${'𝔸'.repeat(1999)}`,
      `x${'𐐷'.repeat(2000)}`,
    ]
    const before = process.cpuUsage()
    for (const text of hard) {
      const words = tokenize(text)
      expect(words.isWellFormed()).toBe(true)
      expect(words.length).toBeLessThanOrEqual(8001)
    }
    const { user, system } = process.cpuUsage(before)
    // A few milliseconds, which a busy machine does not make more than a few times as many.
    expect((user + system) / 1000).toBeLessThan(500)
  })

  test('a search asks for every word, and for nothing that is a wildcard', () => {
    expect(searchParts('Milk% the_\\ milk')).toEqual([' milk', ' the'])
    expect(searchParts('mi milk mil 牛 牛奶')).toEqual([' milk', ' 牛 奶'])
    expect(searchParts('!!!')).toEqual([])
  })
})

onBothDatabases('the fields of a task', api => {
  test('everything that a user may say is kept and answered', async () => {
    const ada = await api.user()
    const said = { priority: 4, tags: ['home', 'a "b" \\, {c}', '🦆'], position: 'a0', status: 'completed' }

    const made = await api.post('/tasks', {
      token: ada.token,
      json: { title: 'Buy milk', due_at: '2026-11-24T19:00:00.5+01:00', ...said },
    })

    expect(made.status).toBe(201)
    expect(made.body).toMatchObject({ ...said, due_at: '2026-11-24T18:00:00.500000Z' })
    expect(made.body.completed_at).not.toBeNull()
    const read = await api.get(`/tasks/${made.body.id}`, { token: ada.token })
    expect(read.body).toEqual(made.body)
  })

  test('each field can be changed scriptsWithoutSpaces, and a date can be taken away', async () => {
    const ada = await api.user()
    const task = await api.task(ada, { due_at: '2026-11-24T18:00:00Z', tags: ['home'], priority: 1 })
    let expected = task
    for (const [json, change] of [
      [{ due_at: '9999-12-31T23:59:59.999999Z' }],
      // Finer than a microsecond is cut off, not rounded.
      [{ due_at: '2026-01-01T00:00:00.9999999Z' }, { due_at: '2026-01-01T00:00:00.999999Z' }],
      [{ due_at: null }],
      [{ priority: 0 }],
      [{ tags: [] }],
      [{ position: 'b' }],
      [{ title: 'Buy bread' }],
      [{ tags: ['x', 'y', 'x'] }, { tags: ['x', 'y'] }],
    ] as [object, object?][]) {
      const { body } = await api.patch(`/tasks/${task.id}`, { token: ada.token, json })

      expected = {
        ...expected,
        ...(change ?? json),
        version: expected.version + 1,
        updated_at: expect.any(String),
      }
      expect(body).toEqual(expected)
    }
  })

  test('a change to what is there already is none, however it is written', async () => {
    const ada = await api.user()
    const task = await api.task(ada, { due_at: '2026-11-24T18:00:00Z', tags: ['home'], status: 'completed' })

    const { body } = await api.patch(`/tasks/${task.id}`, {
      token: ada.token,
      json: { due_at: '2026-11-24T19:00:00+01:00', tags: ['home', 'home'], status: 'completed' },
    })

    expect(body).toEqual(task)
  })

  test('what is completed again keeps the moment', async () => {
    const ada = await api.user()
    const task = await api.task(ada, { status: 'completed' })

    const { body } = await api.patch(`/tasks/${task.id}`, {
      token: ada.token,
      json: { status: 'completed', title: 'Buy bread' },
    })

    expect(body).toMatchObject({ title: 'Buy bread', completed_at: task.completed_at })
    expect(body.updated_at > task.updated_at).toBe(true)
  })

  test.each([
    [{ due_at: '2026-02-31T00:00:00Z' }, ['due_at'], 'datetime'],
    [{ due_at: '2026-11-24T18:00:00' }, ['due_at'], 'datetime'],
    [{ due_at: 'infinity' }, ['due_at'], 'datetime'],
    [{ due_at: 5 }, ['due_at'], 'string_type'],
    [{ priority: 5 }, ['priority'], 'less_than_equal'],
    [{ priority: -1 }, ['priority'], 'greater_than_equal'],
    [{ priority: 1.5 }, ['priority'], 'int_type'],
    [{ priority: '1' }, ['priority'], 'int_type'],
    [{ priority: 1e300 }, ['priority'], 'less_than_equal'],
    [{ priority: null }, ['priority'], 'int_type'],
    [{ tags: null }, ['tags'], 'list_type'],
    [{ tags: 'home' }, ['tags'], 'list_type'],
    [{ tags: Array.from({ length: 21 }, (_, i) => `${i}`) }, ['tags'], 'too_long'],
    [{ tags: ['🦆'.repeat(51)] }, ['tags', 0], 'string_too_long'],
    [{ tags: ['a', ''] }, ['tags', 1], 'string_too_short'],
    [{ tags: ['\u3000'] }, ['tags', 0], 'string_blank'],
    [{ tags: ['a\nb'] }, ['tags', 0], 'string_pattern_mismatch'],
    [{ tags: ['a\tb'] }, ['tags', 0], 'string_pattern_mismatch'],
    [{ tags: ['a\u0085b'] }, ['tags', 0], 'string_pattern_mismatch'],
    [{ tags: ['\ud800'] }, ['tags', 0], 'string_unicode'],
    [{ tags: [['a']] }, ['tags', 0], 'string_type'],
    [{ position: 'a'.repeat(256) }, ['position'], 'string_too_long'],
    [{ position: 'a\0' }, ['position'], 'string_unicode'],
    [{ position: null }, ['position'], 'string_type'],
  ] as [object, (string | number)[], string][])('%j is refused', async (json, path, type) => {
    const ada = await api.user()

    const answer = await api.post('/tasks', { token: ada.token, json: { title: 'x', ...json } })

    expect(answer.status).toBe(422)
    expect(answer.body.detail).toEqual([{ loc: ['body', ...path], msg: expect.any(String), type }])
  })

  test('twenty tags of fifty characters are taken', async () => {
    const ada = await api.user()
    const tags = Array.from({ length: 20 }, (_, i) => `${'🦆'.repeat(48)}${String(i).padStart(2, '0')}`)

    const task = await api.task(ada, { tags, position: '🦆'.repeat(255) })

    expect(task.tags).toEqual(tags)
  })

  test('every printable character of ASCII but the space is a title', async () => {
    const ada = await api.user()
    const titles = Array.from({ length: 94 }, (_, i) => String.fromCharCode(0x21 + i))
    const operations = titles.map(title => ({ op: 'create', task: { title } }))

    const batch = await api.post('/tasks/batch', { token: ada.token, json: { operations } })

    expect(batch.body.results?.map(({ task }: { task: { title: string } }) => task.title)).toEqual(titles)
  })

  test.each([
    ['tasks_title_length', `title = ''`],
    ['tasks_title_not_blank', `title = '  '`],
    ['tasks_description_length', `description = repeat('x', 2001)`],
    ['tasks_status_known', `status = 'done'`],
    ['tasks_priority_range', `priority = 5`],
    ['tasks_position_length', `position = repeat('x', 256)`],
    ['tasks_tags_count', `tags = array_fill('a'::text, array[21])`],
    ['tasks_tags_items', `tags = array[null]::text[]`],
    ['tasks_tags_items', `tags = '{a,""}'`],
    ['tasks_tags_items', `tags = array['a', repeat('ü', 1000)]`],
    ['tasks_due_at_range', `due_at = 'infinity'`],
    ['tasks_due_at_range', `due_at = '0001-12-31 BC'`],
    ['tasks_completed_at_matches', `status = 'completed', completed_at = null`],
  ])('the database itself keeps %s', async (constraint, change) => {
    const ada = await api.user()
    const task = await api.task(ada)

    const failure = await api.sql(`update tasks set ${change} where id = $1`, [task.id]).catch(error => error)

    expect(failure.constraint_name ?? failure.constraint).toBe(constraint)
  })
})
