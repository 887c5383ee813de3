import type { Change } from '../copy.ts'

interface Props {
  /** The list that it goes to; none, when it is empty. */
  list: string
  onChange: (change: Change) => void
}

export function AddTask({ list, onChange }: Props) {
  function submit(event: SubmitEvent) {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const title = String(new FormData(form).get('title')).trim()
    form.reset()
    const fields = { title, list_id: list || null }
    if (title) onChange({ op: 'create', id: crypto.randomUUID(), version: 0, fields })
  }

  return (
    <form class="row" onSubmit={submit}>
      <input name="title" aria-label="New task" placeholder="New task" maxlength={200} required />
      <button type="submit">Add</button>
    </form>
  )
}
