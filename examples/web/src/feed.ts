import type { Account } from './account.ts'
import { report } from './copy.ts'
import { Problem } from './problem.ts'

/** Brings the copy up to date: everything that changed since the cursor, in order, deletions included. */
export async function pull({ api, copy }: Account) {
  const db = await copy
  for (let hasMore = true; hasMore; ) {
    const since = await db.get('about', 'cursor')
    const { data, error, response } = await api.GET('/api/v1/tasks/changes', { params: { query: { since } } })
    // Each answer and its cursor are stored together, or not at all.
    const transaction = db.transaction(['tasks', 'lists', 'about'], 'readwrite')
    const tasks = transaction.objectStore('tasks')
    const lists = transaction.objectStore('lists')
    const about = transaction.objectStore('about')
    if (data) {
      for (const task of data.tasks) tasks.put(task)
      for (const id of data.deleted) tasks.delete(id)
      for (const list of data.lists) lists.put(list)
      for (const id of data.deleted_lists) lists.delete(id)
      about.put(data.cursor, 'cursor')
      hasMore = data.has_more
    } else if (since && [410, 422].includes(response.status)) {
      // The cursor is too old, or from another database: the copy begins again.
      tasks.clear()
      lists.clear()
      about.delete('cursor')
    } else throw new Problem(response, error)
    await transaction.done
    if (!data || [data.tasks, data.deleted, data.lists, data.deleted_lists].some(part => part.length > 0))
      report()
  }
}
