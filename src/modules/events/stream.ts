/** Why the service ends a stream; its last event says so. */
type EndCode = 'invalid_token' | 'restarting' | 'too_slow'
/** Why a stream is over: the service has ended it, or the client has gone. */
type EndReason = EndCode | 'client'

/** What a client may leave unread, beside what its connection has buffered. */
const unsentBytesMax = 1024 * 1024

/** A place in a user's changes. */
export interface Place {
  cursor: string
  version: number
}

/** What a stream reports. */
export interface StreamListener {
  /** It is over; the client may still be receiving. Called once. */
  onEnd(reason: EndReason): void
  /** The client has received everything or has gone. */
  onClose(): void
  /** The client has received all that was read, and there is more to read. */
  onDrain(): void
}

const encoder = new TextEncoder()

/** A server-sent event. `data` is one line. */
export const event = (name: string, data: string, id?: string) =>
  encoder.encode(`event: ${name}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}\n\n`)

const ping = encoder.encode(': ping\n\n')
const retry = encoder.encode('retry: 2000\n')

/**
 * A client's place in the changes, and what its socket has not accepted yet. It is the source of the response's body:
 * Bun calls `pull` when everything before was sent, and `cancel` when the client has gone.
 */
export class Stream {
  /** There may be changes after `place`. */
  isBehind = true
  /** Fires after a time without an event. */
  readonly #silence: Timer
  /** There was more to read than one page. */
  #hasMore = false
  #unsent: Uint8Array[] = []
  #unsentBytes = 0
  /** Set while the client waits for more. */
  #waiting: ReadableStreamDefaultController<Uint8Array> | undefined
  #end: EndReason | undefined

  /** A stream that is silent for `pingAfterMs` gets a comment. */
  constructor(
    public place: Place,
    private readonly listener: StreamListener,
    pingAfterMs: number,
  ) {
    const { cursor } = place
    this.#silence = setInterval(() => this.#ping(), pingAfterMs).unref()
    this.#send(Buffer.concat([retry, event('hello', JSON.stringify({ cursor }), cursor)]))
  }

  /** The response's body. Without a queue of its own: what is unsent is known here alone. */
  body() {
    return new ReadableStream(this, { highWaterMark: 0 })
  }

  pull(controller: ReadableStreamDefaultController<Uint8Array>) {
    const next = this.#unsent.shift()
    if (next) {
      this.#unsentBytes -= next.length
      controller.enqueue(next)
    } else if (this.#end) {
      controller.close()
      this.listener.onClose()
    } else {
      this.#waiting = controller
      if (this.#hasMore) this.listener.onDrain()
    }
  }

  cancel() {
    this.#endBecause('client')
    this.listener.onClose()
  }

  /** Whether to read changes for it. A long past is read as fast as the client takes it, so it is never too slow for that. */
  get wantsChanges(): boolean {
    return this.isBehind && !this.#end && (!this.#hasMore || this.#waiting !== undefined)
  }

  /** Moves on to `place`, past the changes in `bytes`, if there were any. */
  advance(place: Place, bytes: Uint8Array | undefined, hasMore: boolean) {
    this.place = place
    this.#hasMore = hasMore
    this.isBehind ||= hasMore
    if (bytes) this.#send(bytes)
  }

  /** Sends the last event; the stream closes when the client has received it. */
  end(code: EndCode) {
    if (this.#endBecause(code)) this.#push(event('end', JSON.stringify({ code })))
  }

  /**
   * Keeps proxies from closing a quiet connection, and lets TCP notice within minutes a client that has vanished: it
   * acknowledges nothing.
   */
  #ping() {
    if (this.#waiting) this.#send(ping)
  }

  #endBecause(reason: EndReason): boolean {
    if (this.#end) return false
    this.#end = reason
    clearInterval(this.#silence)
    this.listener.onEnd(reason)
    return true
  }

  #send(bytes: Uint8Array) {
    if (this.#end) return
    this.#silence.refresh()
    if (this.#unsentBytes < unsentBytesMax) return this.#push(bytes)
    // The client continues after the last change that it received.
    this.#unsent = []
    this.end('too_slow')
  }

  #push(bytes: Uint8Array) {
    this.#unsent.push(bytes)
    this.#unsentBytes += bytes.length
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting) this.pull(waiting)
  }
}
