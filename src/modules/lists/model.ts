import { t } from 'elysia'
import { pageParameters } from '../../http/paging.ts'
import { flag, instant, integer, oneOf, ownId, pathId, text, uuid } from '../../http/schema.ts'

const example = {
  id: '019a9c3f-2d40-7e8b-a1c2-6b7c8d9e0f12',
  name: 'Groceries',
  position: 'a0',
  created_at: '2026-11-23T05:40:00.000000Z',
  updated_at: '2026-11-23T05:40:00.000000Z',
  version: 3,
}

const name = text({ minLength: 1, maxLength: 100, notBlank: true, examples: [example.name] })
const position = text({
  maxLength: 255,
  description: 'Where the list stands among the others; compared byte by byte. `a0` < `a1` < `b`.',
  examples: [example.position],
})

export const list = t.Object(
  {
    id: uuid(),
    name: t.String({ examples: [example.name] }),
    position: t.String({ description: 'Lists are sorted by it, as text.', examples: [example.position] }),
    created_at: instant(),
    updated_at: instant(),
    version: integer({
      format: 'int64',
      description: 'From the same sequence as the versions of your tasks; also in the `ETag`.',
      examples: [example.version],
    }),
    open: t.Optional(integer({ description: 'With `counts`: tasks in it that are not completed.' })),
    total: t.Optional(integer({ description: 'With `counts`: all tasks in it.' })),
  },
  { title: 'TaskList', examples: [example] },
)

export const listsPage = t.Array(list, { examples: [[example]] })

export const listCreate = t.Object(
  {
    id: t.Optional(ownId()),
    name,
    position: t.Optional(position),
  },
  { title: 'ListCreate', examples: [{ name: example.name, position: example.position }] },
)

/** What is absent stays as it is. */
export const listUpdate = t.Partial(t.Object({ name, position }), {
  title: 'ListUpdate',
  examples: [{ name: 'Errands' }],
})

const counts = t.Optional(flag({ description: 'Also count the tasks in it: `open` and `total`.' }))

export const listsQuery = t.Object({
  ...pageParameters,
  offset: t.Optional(t.Integer({ minimum: 0, maximum: 500, description: 'Skip this many.' })),
  total: t.Optional(flag({ description: 'Also count the lists: `X-Total-Count`.' })),
  counts,
})

export const readListQuery = t.Object({ counts })

export const deleteListQuery = t.Object({
  tasks: t.Optional(
    oneOf(['keep', 'trash'], {
      description: 'What becomes of the tasks in it: `keep` (the default) puts them into the inbox.',
    }),
  ),
})

export const listParams = t.Object({ id: pathId('The id of a list.') })

export type List = typeof list.static
export type ListCreate = typeof listCreate.static
export type ListUpdate = typeof listUpdate.static
export type ListsQuery = typeof listsQuery.static
