import type { Random } from './random.ts'

/** The network of one device, which loses requests and answers, ends streams, and goes away. */
export function createFlakyNetwork(random: Random, token: string, urls: () => string[]) {
  const streams = new Set<AbortController>()
  const stats = { lostAnswers: 0, conflicts: 0 }
  let isOffline = false
  let isCalm = false
  const fails = (probability: number) => !isCalm && random.chance(probability)

  async function fetchFlaky(request: Request): Promise<Response> {
    if (isOffline || fails(0.05)) throw new TypeError('no network')
    const { pathname, search } = new URL(request.url)
    const body = request.body ? await request.text() : undefined
    const headers = new Headers(request.headers)
    headers.set('authorization', `Bearer ${token}`)
    const isStream = pathname.endsWith('/events')
    const drop = new AbortController()
    if (isStream) streams.add(drop)
    const response = await fetch(random.pick(urls()) + pathname + search, {
      ...{ method: request.method, headers, body },
      signal: AbortSignal.any([request.signal, drop.signal]),
    })
    if (response.status === 412) stats.conflicts++
    if (!isStream && fails(0.3)) {
      await response.arrayBuffer()
      stats.lostAnswers++
      throw new TypeError('the answer is lost')
    }
    return response
  }

  return {
    fetch: fetchFlaky,
    stats,
    dropStreams() {
      for (const stream of streams) stream.abort()
      streams.clear()
    },
    offline(value: boolean) {
      isOffline = value
      if (isOffline) this.dropStreams()
    },
    /** Nothing fails any more. */
    calm() {
      isCalm = true
      isOffline = false
    },
  }
}

/** A network whose open connections may fall silent: no byte comes any more, and no end. */
export function createSilentNetwork(token: string, url: string) {
  const open: { isStream: boolean; isSilent: boolean }[] = []

  async function fetchSilently(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url)
    const headers = new Headers(request.headers)
    headers.set('authorization', `Bearer ${token}`)
    const body = request.body ? await request.text() : undefined
    const { method, signal } = request
    const response = await fetch(url + pathname + search, { method, headers, body, signal })
    const connection = { isStream: pathname.endsWith('/events'), isSilent: false }
    open.push(connection)
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({
      transform: (bytes, passed) => (connection.isSilent ? undefined : passed.enqueue(bytes)),
      flush: () => (connection.isSilent ? new Promise<void>(() => {}) : undefined),
    })
    response.body?.pipeTo(writable).catch(() => {})
    return new Response(response.body && readable, response)
  }

  return {
    fetch: fetchSilently,
    hasStream: () => open.some(connection => connection.isStream),
    silence() {
      for (const connection of open) connection.isSilent = true
    },
  }
}
