import type { Change } from '../copy.ts'
import type { ShownTask } from '../tasks.ts'
import { dateOf, priorities } from './words.ts'

interface Props {
  task: ShownTask
  onChange: (change: Change) => void
  onOpen: () => void
}

export function TaskItem({ task, onChange, onOpen }: Props) {
  const { id, version, title, status, priority, due_at, isWaiting, theirs } = task
  const complete = (isDone: boolean) =>
    onChange({ op: 'update', id, version, fields: { status: isDone ? 'completed' : 'pending' } })

  return (
    <li>
      <label>
        <input
          type="checkbox"
          checked={status === 'completed'}
          onChange={event => complete(event.currentTarget.checked)}
        />
        <span>{title}</span>
      </label>
      <small>
        {due_at && `Due ${dateOf(due_at)}`} {priority > 0 && priorities[priority]}
        {isWaiting && !theirs && ' Waiting'}
      </small>
      <button type="button" class={theirs ? '' : 'quiet'} aria-label={`Edit ${title}`} onClick={onOpen}>
        {theirs ? 'Changed elsewhere' : 'Edit'}
      </button>
    </li>
  )
}
