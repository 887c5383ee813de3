import { useEffect, useState } from 'preact/hooks'
import type { Account } from '../account.ts'
import { onCopy } from '../copy.ts'
import type { components } from '../schema.d.ts'

type TaskList = components['schemas']['TaskList']

/** The user's lists, in their order, from the copy. */
export function useLists({ copy }: Account): TaskList[] {
  const [lists, setLists] = useState<TaskList[]>([])
  useEffect(() => {
    const load = async () => setLists((await (await copy).getAll('lists')).sort(inOrder))
    load()
    return onCopy(load)
  }, [copy])
  return lists
}

function inOrder(a: TaskList, b: TaskList): number {
  if (a.position !== b.position) return a.position < b.position ? -1 : 1
  return a.id < b.id ? -1 : 1
}
