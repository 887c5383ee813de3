export const statuses = { pending: 'To do', in_progress: 'In progress', completed: 'Done' }

export const priorities = ['None', 'Low', 'Medium', 'High', 'Urgent']

export const dateOf = (moment: string) =>
  new Date(moment).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })

/** A moment as an `<input type="datetime-local">` holds it: in the user's time zone, to the minute. */
export function localInput(moment: string): string {
  const date = new Date(moment)
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}
