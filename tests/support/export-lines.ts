/** What passlib 1.7.4 wrote for `correct horse`. */
export const passlibHash = '$2b$12$T.xn6dKSQZ3gXkAvTvAZJudmKrXXa2cb26eIlthPCWC.dzB4VYTaK'

const moment = '2026-01-01T00:00:00Z'
const header = { type: 'header', format: 'todo-api-export', version: 2 }
export const userLine = (id: string, fields: object = {}) => ({
  ...{ type: 'user', id, email: 'eve@example.com', password_hash: passlibHash, disabled_at: null },
  ...{ created_at: moment, updated_at: moment, last_version: 0, forgotten_version: 0, ...fields },
})
export const taskLine = (user_id: string, version: number, fields: object = {}) => ({
  ...{ type: 'task', id: crypto.randomUUID(), user_id, title: `Task ${version}`, description: null },
  ...{ status: 'pending', priority: 0, due_at: null, tags: [], position: '', completed_at: null },
  ...{ created_at: moment, updated_at: moment, version, deleted_at: null, ...fields },
})
export const tombstoneLine = (user_id: string, version: number) => ({
  ...{ type: 'tombstone', id: crypto.randomUUID(), user_id, version, deleted_at: new Date().toISOString() },
})
/** The lines of an export, with the line at its end. */
export const exportOf = (...lines: { type: string }[]) => {
  const count = (type: string) => lines.filter(line => line.type === type).length
  const end = { type: 'end', user: count('user'), task: count('task'), tombstone: count('tombstone') }
  return [header, ...lines, end].map(line => `${JSON.stringify(line)}\n`)
}
