import type { Client } from 'openapi-fetch'
import type { paths } from './schema.d.ts'

/** The service sends something every 15 s. After this long without a byte, the connection is dead. */
const silenceMsMax = 30_000

/** Calls back whenever the stream sends something: at its begin, at each change, and for its ping every 15 s. */
export async function listen(api: Client<paths>, onNews: () => void, stop: AbortSignal, retryMs = 5000) {
  while (!stop.aborted) {
    await receive(api, onNews, stop).catch(() => {})
    await new Promise(resolve => setTimeout(resolve, retryMs))
  }
}

async function receive(api: Client<paths>, onNews: () => void, stop: AbortSignal) {
  const silence = new AbortController()
  const wait = () => setTimeout(() => silence.abort(), silenceMsMax)
  let timer = wait()
  const signal = AbortSignal.any([stop, silence.signal])
  const { data } = await api.GET('/api/v1/tasks/events', { parseAs: 'stream', signal })
  function write() {
    clearTimeout(timer)
    timer = wait()
    onNews()
  }
  await data?.pipeTo(new WritableStream({ write }))
}
