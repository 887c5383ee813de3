import { isOutage } from '../../db/pg-error.ts'
import { findAppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { errorFields, type Log } from '../../telemetry/log.ts'
import type { TaskService } from '../tasks/service.ts'
import { event, type Stream } from './stream.ts'

interface Parts {
  log: Pick<Log, 'error'>
  tasks: Pick<TaskService, 'changes'>
  limits: {
    /** A user's changes are read at most this often. */
    readEveryMs: number
    /** Changes in an event. */
    entries: number
  }
  stats: { entriesSent: number; wakeUps: number }
}

/** The streams of one user, which share what is read. */
export class Feed {
  readonly streams = new Set<Stream>()
  /** A version that every stream has read, or is about to: with a higher one, `wake` is due. */
  knownVersion = -1
  #isReading = false
  #readAt = 0

  constructor(
    private readonly userId: UserId,
    private readonly parts: Parts,
  ) {}

  /** Marks the streams that are not known to have got as far as `version` as behind, and reads for them. */
  wake(version = Number.POSITIVE_INFINITY) {
    for (const stream of this.streams) if (stream.place.version < version) stream.isBehind = true
    void this.advance()
  }

  /** Reads for the streams that are behind, one place after the other, until none is. */
  async advance() {
    if (this.#isReading || !this.#findBehind()) return
    this.parts.stats.wakeUps++
    this.#isReading = true
    for (let next = this.#findBehind(); next; next = this.#findBehind()) {
      const pause = this.#readAt + this.parts.limits.readEveryMs - performance.now()
      if (pause > 0) await Bun.sleep(pause)
      this.#readAt = performance.now()
      const { cursor } = next.place
      const group = [...this.streams].filter(stream => stream.place.cursor === cursor && stream.wantsChanges)
      for (const stream of group) {
        // Before the read: what is written during it wakes them again.
        stream.isBehind = false
        // To the end of the queue: the others are next.
        this.streams.delete(stream)
        this.streams.add(stream)
      }
      if (group.length > 0) await this.#read(cursor, group)
    }
    this.#isReading = false
  }

  /** Sends the changes after a place to the streams that are there. */
  async #read(cursor: string, group: Stream[]) {
    const { log, tasks, limits, stats } = this.parts
    try {
      const query = { since: cursor, limit: limits.entries }
      const { json, count, hasMore, ...place } = await tasks.changes(this.userId, query)
      const bytes = count > 0 ? event('changes', json, place.cursor) : undefined
      for (const stream of group) stream.advance(place, bytes, hasMore)
      if (place.version > this.knownVersion) {
        this.wake(place.version)
        this.knownVersion = place.version
      }
      stats.entriesSent += count * group.length
    } catch (error) {
      if (isOutage(error)) {
        // So the next poll of versions wakes them again.
        this.knownVersion = -1
        return
      }
      const failure = findAppError(error)
      if (!failure) log.error('stream failed', { user_id: this.userId, ...errorFields(error) })
      // An account that is gone, or a cursor that has expired meanwhile: the client learns it when it comes back.
      for (const stream of group)
        stream.end(failure?.code === 'invalid_token' ? 'invalid_token' : 'restarting')
    }
  }

  #findBehind(): Stream | undefined {
    for (const stream of this.streams) if (stream.wantsChanges) return stream
    return undefined
  }
}
