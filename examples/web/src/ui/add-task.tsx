import type { Change } from '../copy.ts'

export function AddTask({ onChange }: { onChange: (change: Change) => void }) {
  function submit(event: SubmitEvent) {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const title = String(new FormData(form).get('title')).trim()
    form.reset()
    if (title) onChange({ op: 'create', id: crypto.randomUUID(), version: 0, fields: { title } })
  }

  return (
    <form class="row" onSubmit={submit}>
      <input name="title" aria-label="New task" placeholder="New task" maxlength={200} required />
      <button type="submit">Add</button>
    </form>
  )
}
