import type { ShownTask, Task } from '../tasks.ts'
import { Dialog } from './dialog.tsx'
import { dateOf, priorities, statuses } from './words.ts'

interface Props {
  mine: ShownTask
  theirs: Task
  onChoose: (id: string, whose: 'mine' | 'theirs') => void
  onClose: () => void
}

type Shown = Pick<Task, 'title' | 'description' | 'status' | 'priority' | 'due_at'>

const rows: [name: string, textOf: (task: Shown) => string][] = [
  ['Title', ({ title }) => title],
  ['Description', ({ description }) => description ?? ''],
  ['Status', ({ status }) => statuses[status]],
  ['Priority', ({ priority }) => priorities[priority]!],
  ['Due', ({ due_at }) => (due_at ? dateOf(due_at) : '')],
]

export function ConflictDialog({ mine, theirs, onChoose, onClose }: Props) {
  const choose = (whose: 'mine' | 'theirs') => () => {
    onChoose(mine.id, whose)
    onClose()
  }
  return (
    <Dialog title="Changed elsewhere" onClose={onClose}>
      <p>This task was changed on another device before your change arrived.</p>
      {mine.isDeleted && <p>You have deleted it.</p>}
      <table>
        <thead>
          <tr>
            <th />
            <th scope="col">Mine</th>
            <th scope="col">Theirs</th>
          </tr>
        </thead>
        <tbody>
          {rows
            .filter(([, textOf]) => textOf(mine) !== textOf(theirs))
            .map(([name, textOf]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{textOf(mine)}</td>
                <td>{textOf(theirs)}</td>
              </tr>
            ))}
        </tbody>
      </table>
      <div class="actions">
        <button type="button" onClick={choose('mine')}>
          Keep mine
        </button>
        <button type="button" onClick={choose('theirs')}>
          Take theirs
        </button>
        <button type="button" class="quiet" onClick={onClose}>
          Later
        </button>
      </div>
    </Dialog>
  )
}
