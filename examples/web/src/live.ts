import { api } from './api.ts'

const retryMs = 5000

/** Calls back whenever the stream sends something: at its begin, at each change, and for its ping every 15 s. */
export async function listen(onNews: () => void, signal: AbortSignal) {
  while (!signal.aborted) {
    const sse = await api.GET('/api/v1/tasks/events', { parseAs: 'stream', signal }).catch(() => null)
    await sse?.data?.pipeTo(new WritableStream({ write: onNews })).catch(() => {})
    await new Promise(resolve => setTimeout(resolve, retryMs))
  }
}
