import { expect, test } from 'bun:test'
import { openApiDocument } from '../src/server/openapi.ts'
import { onBothDatabases, type Sent } from './support/harness.ts'

/** The limits of one value, by the keywords of JSON Schema. */
type Limits = Partial<Record<(typeof keywords)[number], number>>
const keywords = ['minLength', 'maxLength', 'minimum', 'maximum', 'minItems', 'maxItems'] as const

/** A value in a request, with limits. */
interface Limited {
  operation: string
  method: string
  path: string
  place: 'query' | 'header' | 'body'
  /** Its name; in a body the names and indexes that lead to it. */
  steps: (string | 0)[]
  limits: Limits
}

const document: any = await openApiDocument()

function resolve(schema: any): any {
  if (!schema?.$ref) return schema ?? {}
  const names: string[] = schema.$ref.slice('#/'.length).split('/')
  return resolve(names.reduce((part, name) => part[name], document))
}

/** What has limits in a schema, each once. */
function limitsIn(reference: unknown, steps: (string | 0)[]): Pick<Limited, 'steps' | 'limits'>[] {
  const schema = resolve(reference)
  const known = keywords.filter(name => schema[name] < Number.MAX_SAFE_INTEGER)
  const limits: Limits = Object.fromEntries(known.map(name => [name, schema[name]]))
  const parts = [
    ...Object.entries(schema.properties ?? {}).flatMap(([name, part]) => limitsIn(part, [...steps, name])),
    ...(schema.items ? limitsIn(schema.items, [...steps, 0]) : []),
    ...[...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].flatMap(choice => limitsIn(choice, steps)),
  ]
  const all = known.length > 0 ? [{ steps, limits }, ...parts] : parts
  return [...new Map(all.map(found => [found.steps.join(), found])).values()]
}

const limited = Object.entries<any>(document.paths).flatMap(([path, operations]) =>
  Object.entries<any>(operations).flatMap(([method, { operationId, parameters = [], requestBody }]) => {
    const found = [
      ...parameters
        .map(resolve)
        .flatMap(({ name, in: place, schema }: any) =>
          limitsIn(schema, [name.toLowerCase()]).map(value => ({ place, ...value })),
        ),
      ...limitsIn(Object.values<any>(requestBody?.content ?? {})[0]?.schema, []).map(value => ({
        place: 'body',
        ...value,
      })),
    ]
    return found.map(value => ({ operation: operationId, method, path, ...value }) as Limited)
  }),
)

/** What a request says of a value that is too long or too short, too large or too small. */
const types = {
  minLength: 'string_too_short',
  maxLength: 'string_too_long',
  minimum: 'greater_than_equal',
  maximum: 'less_than_equal',
  minItems: 'too_short',
  maxItems: 'too_long',
}

/** A value of this size under a keyword. */
function ofSize(keyword: string, size: number) {
  if (keyword.endsWith('Length')) return 'x'.repeat(size)
  return keyword.endsWith('Items') ? Array<string>(size).fill('x') : size
}

/** A request with nothing in it but one value. */
function requestWith({ path, place, steps }: Limited, value: ReturnType<typeof ofSize>): [string, Sent] {
  const address = path.replace('/api/v1', '').replace('{id}', crypto.randomUUID())
  if (place === 'header') return [address, { headers: { [steps[0]!]: String(value) } }]
  if (place === 'query') {
    const pairs = [value].flat().map((item): [string, string] => [String(steps[0]), String(item)])
    return [`${address}?${new URLSearchParams(pairs)}`, {}]
  }
  const wrap = (inner: unknown, step: string | 0) => (step === 0 ? [inner] : { [step]: inner })
  return [address, { json: steps.reduceRight<unknown>(wrap, value) }]
}

/** Not the cursors of a stream, which has no end; an address, whose length is a part of its pattern; fields of an operation. */
const isAlone = ({ operation, steps: [name, ...rest] }: Limited) =>
  operation !== 'streamChanges' && name !== 'email' && !(name === 'operations' && rest.length > 0)

onBothDatabases('a value', api => {
  test('may be at its limit and not beyond', async () => {
    const { token } = await api.user()
    /** Whether a request with such a value is refused for it. */
    async function isRefused(value: Limited, keyword: keyof typeof types, size: number) {
      const [address, sent] = requestWith(value, ofSize(keyword, size))
      const { status, body } = await api.request(value.method.toUpperCase(), address, { token, ...sent })
      expect(status).toBeLessThan(500)
      const problems: { loc: unknown[]; type: string }[] = status === 422 ? body.detail : []
      // All values of a parameter that is given more than once are at one place.
      const steps = value.place === 'query' ? value.steps.slice(0, 1) : value.steps
      const loc = [value.place, ...steps].join()
      return problems.some(({ loc: at, type }) => type === types[keyword] && at.join() === loc)
    }

    const wrong: unknown[] = []
    for (const value of limited.filter(isAlone)) {
      for (const [keyword, limit] of Object.entries(value.limits) as [keyof typeof types, number][]) {
        const beyond = keyword.startsWith('min') ? limit - 1 : limit + 1
        const seen = [await isRefused(value, keyword, limit), await isRefused(value, keyword, beyond)]
        if (!Bun.deepEquals(seen, [false, true])) wrong.push([value.operation, value.steps, keyword, seen])
      }
    }
    expect(limited.filter(isAlone).length).toBeGreaterThan(45)
    expect(wrong).toEqual([])
  })
})

onBothDatabases('a page', api => {
  test('has fifty entries by default', async () => {
    const { token } = await api.user()
    const entries = async (path: string) => {
      const { body } = await api.get(path, { token })
      return Array.isArray(body) ? body.length : body.tasks.length
    }
    const batch = (operations: object[]) => api.post('/tasks/batch', { token, json: { operations } })
    const created = await batch(Array(51).fill({ op: 'create', task: { title: 'Buy milk' } }))
    const seen = [await entries('/tasks'), await entries('/tasks/changes')]
    await batch(created.body.results.map(({ id }: { id: string }) => ({ op: 'delete', id })))
    for (let i = 0; i < 51; i++) await api.post('/lists', { token, json: { name: 'Groceries' } })
    seen.push(await entries('/tasks/trash'), await entries('/lists'))

    expect(seen).toEqual([50, 50, 50, 50])
  })
})
