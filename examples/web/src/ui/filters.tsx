import type { Filter } from '../tasks.ts'
import { statuses } from './words.ts'

interface Props {
  filter: Filter
  onFilter: (filter: Filter) => void
}

export function Filters({ filter, onFilter }: Props) {
  return (
    <search class="row">
      <input
        type="search"
        aria-label="Search"
        placeholder="Search"
        maxlength={200}
        value={filter.q}
        onInput={event => onFilter({ ...filter, q: event.currentTarget.value })}
      />
      <select
        aria-label="Status"
        value={filter.status}
        onChange={event => onFilter({ ...filter, status: event.currentTarget.value as Filter['status'] })}
      >
        <option value="">All</option>
        {Object.entries(statuses).map(([status, word]) => (
          <option key={status} value={status}>
            {word}
          </option>
        ))}
      </select>
    </search>
  )
}
