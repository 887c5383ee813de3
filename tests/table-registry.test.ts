import { expect, test } from 'bun:test'
import { getTableName } from 'drizzle-orm'
import { exportAll } from '../src/cli/transfer/export.ts'
import { exportedTables, registry } from '../src/modules/table-registry.ts'
import { makeApiToken } from './support/api-token.ts'
import { onBothDatabases, type Service } from './support/harness.ts'

const file = 'src/modules/table-registry.ts'
const nameOf = ({ table }: (typeof registry)[number]) => getTableName(table)
const owned = registry.flatMap(entry =>
  entry.owner ? [{ name: nameOf(entry), owner: entry.owner.name }] : [],
)

/** The types of the lines in an export of a user. */
async function exportedTypes({ driver }: Service, { id }: { id: string }): Promise<string[]> {
  let lines = ''
  const output = {
    async write(text: string) {
      lines += text
    },
  }
  await exportAll(driver, output, id)
  const types = lines.match(/(?<=^\{"type":")\w+/gm)!
  return [...new Set(types)].filter(type => !['header', 'end'].includes(type)).sort()
}

/** What the registry does not say of the tables of a database. */
async function missing({ sql }: Pick<Service, 'sql'>): Promise<string[]> {
  const columns = (await sql(
    `select table_name, column_name from information_schema.columns where table_schema = 'public'`,
    [],
  )) as [table: string, column: string][]
  const tables = [...new Set(columns.map(([table]) => table))].sort()
  const registered: readonly string[] = registry.map(nameOf)
  return [
    ...tables
      .filter(table => !registered.includes(table))
      .map(
        table =>
          `the table ${table} is not registered: say in ${file} whose rows it has, and as what they are exported`,
      ),
    ...registered
      .filter(table => !tables.includes(table))
      .map(table => `the table ${table} is in ${file} and in no migration: run \`bun run db:generate\``),
    ...columns
      .filter(([table, column]) => column === 'user_id' && !owned.some(({ name }) => name === table))
      .map(([table]) => `the table ${table} has a user_id: make it the \`owner\` in ${file}`),
  ]
}

onBothDatabases('every table', api => {
  test('is registered', async () => {
    expect(await missing(api)).toEqual([])
  })

  test('that is forgotten is reported with what to do', async () => {
    await api.sql('create table forgotten (user_id uuid, text text)', [])

    expect(await missing(api)).toEqual([
      `the table forgotten is not registered: say in ${file} whose rows it has, and as what they are exported`,
      `the table forgotten has a user_id: make it the \`owner\` in ${file}`,
    ])
    await api.sql('drop table forgotten', [])
  })

  test('with rows of a user has none after the account is deleted, and keeps those of other users', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    for (const user of [ada, bob]) {
      await api.task(user)
      await makeApiToken(api, user)
      const gone = await api.task(user)
      for (const name of ['kept', 'deleted']) {
        const { body: list } = await api.post('/lists', { token: user.token, json: { name } })
        if (name === 'kept') await api.task(user, { list_id: list.id })
        else await api.delete(`/lists/${list.id}`, { token: user.token })
      }
      await api.delete(`/tasks/${gone.id}?permanent=true`, { token: user.token })
      await api.post('/auth/tickets', { token: user.token, json: { for: 'events' } })
    }
    const tablesWith = async ({ id }: { id: string }) => {
      const names: string[] = []
      for (const { name, owner } of owned) {
        const [row] = await api.sql(`select count(*) from ${name} where ${owner} = $1`, [id])
        if (row![0] !== 0) names.push(name)
      }
      return names
    }
    const all = owned.map(({ name }) => name)
    // A new table needs a row here, or this proves nothing about it.
    expect(await tablesWith(ada)).toEqual(all)
    // A new type needs its query in src/cli/transfer/export.ts and its place in bulk-insert.ts.
    expect(await exportedTypes(api, ada)).toEqual(Object.keys(exportedTables).sort())

    await api.delete('/users/me', { token: ada.token, json: { password: ada.password } })

    expect(await tablesWith(ada)).toEqual([])
    expect(await tablesWith(bob)).toEqual(all)
  })
})
