import { expect, test } from 'bun:test'
import { onBothDatabases } from './support/harness.ts'

onBothDatabases('a change of a task without a number', api => {
  const failure = (statement: string, values: unknown[]) =>
    api.sql(statement, values).then(
      () => undefined,
      error => error.message as string,
    )

  test('is refused, and the message says what to do', async () => {
    const ada = await api.user()
    const task = await api.task(ada)

    expect(await failure(`update tasks set title = 'by hand' where id = $1`, [task.id])).toBe(
      `an update of task ${task.id} keeps its version 1: take the next one (update user_versions set last_version = last_version + 1 where user_id = '${ada.id}' returning last_version) and set version to it`,
    )
    expect(
      await failure(`update tasks set title = 'by hand', version = 0 where id = $1`, [task.id]),
    ).toContain('keeps its version')
    // As the message says.
    await api.sql(
      `with next_version as (update user_versions set last_version = last_version + 1 where user_id = $1 returning last_version)
       update tasks set title = 'by hand', version = last_version from next_version where id = $2`,
      [ada.id, task.id],
    )
    const { body } = await api.get(`/tasks/${task.id}`, { token: ada.token })
    expect(body).toMatchObject({ title: 'by hand', version: 2 })
  })

  test('is refused when a foreign key makes it: `on delete set null` is no way to clear a column', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    await api.sql('create table shelves (id text primary key)', [])
    await api.sql(`insert into shelves values ('a')`, [])
    const key = 'foreign key (request_hash) references shelves on delete set null'
    await api.sql(`alter table tasks add constraint tasks_shelf ${key}`, [])
    await api.sql(`update tasks set request_hash = 'a', version = version + 1 where id = $1`, [task.id])

    expect(await failure('delete from shelves', [])).toContain(
      `an update of task ${task.id} keeps its version 2`,
    )
    const [row] = await api.sql('select request_hash from tasks where id = $1', [task.id])
    expect(row).toEqual(['a'])
    await api.sql('alter table tasks drop constraint tasks_shelf', [])
  })

  test('is nothing that a deletion makes', async () => {
    const ada = await api.user()
    await api.task(ada)

    await api.sql('delete from user_versions where user_id = $1', [ada.id])

    const [row] = await api.sql('select count(*) from tasks where user_id = $1', [ada.id])
    expect(row).toEqual([0])
  })
})
