import type { Account } from '../account.ts'
import type { Filter } from '../tasks.ts'
import { useLists } from './use-lists.ts'
import { statuses } from './words.ts'

interface Props {
  account: Account
  filter: Filter
  onFilter: (filter: Filter) => void
}

export function Filters({ account, filter, onFilter }: Props) {
  const lists = useLists(account)
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
      {lists.length > 0 && (
        <select
          aria-label="List"
          value={filter.list}
          onChange={event => onFilter({ ...filter, list: event.currentTarget.value })}
        >
          <option value="">All lists</option>
          {lists.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </select>
      )}
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
