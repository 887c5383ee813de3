import type { Change } from '../copy.ts'
import type { ShownTask, Task } from '../tasks.ts'
import { Dialog } from './dialog.tsx'
import { localInput, priorities, statuses } from './words.ts'

interface Props {
  task: ShownTask
  onChange: (change: Change) => void
  onClose: () => void
}

export function EditDialog({ task, onChange, onClose }: Props) {
  const { id, version } = task

  function save(event: SubmitEvent) {
    event.preventDefault()
    const fields = changedFields(task, new FormData(event.currentTarget as HTMLFormElement))
    if (Object.keys(fields).length > 0) onChange({ op: 'update', id, version, fields })
    onClose()
  }
  function remove() {
    onChange({ op: 'delete', id, version, fields: {} })
    onClose()
  }

  // Default values: a list that is loaded meanwhile must not overwrite what the user types.
  return (
    <Dialog title="Edit task" onClose={onClose}>
      <form onSubmit={save}>
        <label>
          Title
          <input name="title" defaultValue={task.title} maxlength={200} required />
        </label>
        <label>
          Description
          <textarea name="description" maxlength={2000} rows={4} defaultValue={task.description ?? ''} />
        </label>
        <label>
          Status
          <select name="status">
            {Object.entries(statuses).map(([status, word]) => (
              <option key={status} value={status} selected={status === task.status}>
                {word}
              </option>
            ))}
          </select>
        </label>
        <label>
          Priority
          <select name="priority">
            {priorities.map((word, priority) => (
              <option key={word} value={priority} selected={priority === task.priority}>
                {word}
              </option>
            ))}
          </select>
        </label>
        <label>
          Due
          <input
            name="due_at"
            type="datetime-local"
            defaultValue={task.due_at ? localInput(task.due_at) : ''}
          />
        </label>
        <div class="actions">
          <button type="submit">Save</button>
          <button type="button" class="quiet" onClick={onClose}>
            Cancel
          </button>
          <button type="button" class="quiet" onClick={remove}>
            Delete
          </button>
        </div>
      </form>
    </Dialog>
  )
}

/** Only what the user has changed: other fields may have changed elsewhere meanwhile. */
function changedFields(task: ShownTask, form: FormData) {
  const text = (name: string) => String(form.get(name)).trim()
  const due = text('due_at')
  const entered = {
    title: text('title'),
    description: text('description') || null,
    status: text('status') as Task['status'],
    priority: Number(text('priority')),
    due_at:
      due === (task.due_at ? localInput(task.due_at) : '')
        ? task.due_at
        : due
          ? new Date(due).toISOString()
          : null,
  }
  const changed = Object.entries(entered).filter(
    ([name, value]) => value !== task[name as keyof typeof entered],
  )
  return Object.fromEntries(changed) as Partial<typeof entered>
}
