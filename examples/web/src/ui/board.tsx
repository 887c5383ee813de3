import { useState } from 'preact/hooks'
import { openAccount } from '../account.ts'
import type { Change } from '../copy.ts'
import { decide, note } from '../outbox.ts'
import type { Session } from '../session.ts'
import { leave } from '../sync.ts'
import type { Filter, ShownTask } from '../tasks.ts'
import { AddTask } from './add-task.tsx'
import { ConflictDialog } from './conflict-dialog.tsx'
import { EditDialog } from './edit-dialog.tsx'
import { Filters } from './filters.tsx'
import { TaskItem } from './task-item.tsx'
import { useSync } from './use-sync.ts'
import { useTasks } from './use-tasks.ts'

export function Board({ session }: { session: Session }) {
  const [account] = useState(() => openAccount(session))
  const [filter, setFilter] = useState<Filter>({ status: '', list: '', q: '' })
  const [opened, setOpened] = useState<ShownTask>()
  const { isOffline, refusals, syncNow } = useSync(account)
  const { tasks, waiting, showMore } = useTasks(account, filter, isOffline)

  async function change(change: Change) {
    await note(account, change)
    syncNow()
  }
  async function choose(id: string, whose: 'mine' | 'theirs') {
    await decide(account, id, whose)
    syncNow()
  }
  const close = () => setOpened(undefined)

  return (
    <>
      <header>
        <h1>To-do</h1>
        <span>{session.user.email}</span>
        <button type="button" class="quiet" onClick={() => leave(account)}>
          Sign out
        </button>
      </header>
      <main>
        <AddTask list={filter.list} onChange={change} />
        <Filters account={account} filter={filter} onFilter={setFilter} />
        <p role="status">
          {isOffline && 'Offline.'} {waiting > 0 && `${waiting} waiting to be sent.`} {refusals.join(' ')}
        </p>
        <ul class="tasks">
          {tasks.map(task => (
            <TaskItem key={task.id} task={task} onChange={change} onOpen={() => setOpened(task)} />
          ))}
        </ul>
        {tasks.length === 0 && <p>No tasks.</p>}
        {showMore && (
          <button type="button" class="quiet" onClick={showMore}>
            Show more
          </button>
        )}
      </main>
      {opened?.theirs && (
        <ConflictDialog mine={opened} theirs={opened.theirs} onChoose={choose} onClose={close} />
      )}
      {opened && !opened.theirs && <EditDialog task={opened} onChange={change} onClose={close} />}
    </>
  )
}
