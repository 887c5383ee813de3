import type { Client } from './harness.ts'
import { until } from './until.ts'

interface ReceivedEvent {
  event: string
  id?: string
  data: any
}

interface Opening {
  token?: string
  /** What stands after `/tasks/events`. */
  query?: string
  headers?: Record<string, string>
}

export type EventReader = Awaited<ReturnType<typeof openEvents>>

/** Opens a stream and reads it, until `close` or its end. */
export async function openEvents({ url }: Pick<Client, 'url'>, { token, query = '', headers = {} }: Opening) {
  const abort = new AbortController()
  const response = await fetch(`${url}/api/v1/tasks/events${query}`, {
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
    signal: abort.signal,
  })
  const events: ReceivedEvent[] = []
  const reader = { text: '', isOver: false }
  let rest = ''
  const done = read(response, text => {
    reader.text += text
    const blocks = (rest + text).split('\n\n')
    rest = blocks.pop()!
    events.push(...blocks.map(parse))
  })
    .catch(() => {})
    .finally(() => {
      reader.isOver = true
    })
  const named = (name: string) => events.filter(({ event }) => event === name)

  return {
    status: response.status,
    headers: response.headers,
    /** Everything in its order, comments included. */
    events,
    /** Everything as it was sent. */
    text: () => reader.text,
    isOver: () => reader.isOver,
    /** All `changes` as one. */
    changes() {
      const all = named('changes').map(({ data }) => data)
      return { tasks: all.flatMap(({ tasks }) => tasks), deleted: all.flatMap(({ deleted }) => deleted) }
    },
    cursor: () => events.findLast(({ id }) => id !== undefined)!.id!,
    /** Waits until that many events of the name have come, and returns the last one. */
    async receive(name: string, count = 1): Promise<ReceivedEvent> {
      await until(() => named(name).length >= count || reader.isOver)
      const found = named(name)[count - 1]
      if (!found) throw new Error(`the stream ended before ${count} × ${name}: ${reader.text}`)
      return found
    },
    /** Waits until the service has ended it. */
    done,
    async close() {
      abort.abort()
      await done
    },
  }
}

async function read({ body }: Response, take: (text: string) => void) {
  const decoder = new TextDecoder()
  for await (const chunk of body as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>)
    take(decoder.decode(chunk, { stream: true }))
}

function parse(block: string): ReceivedEvent {
  if (block.startsWith(':')) return { event: block, data: undefined }
  const {
    event = 'message',
    id,
    data = 'null',
  } = Object.fromEntries(block.split('\n').map(line => line.split(/: (.*)/s)))
  return { event, data: JSON.parse(data), ...(id && { id }) }
}
