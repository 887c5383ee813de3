import { sql } from 'drizzle-orm'
import { type Db, parameter, prepareSql } from '../../db/drizzle.ts'
import { userVersions } from '../../db/tables.ts'
import type { Authenticate } from '../../http/require-user.ts'
import { AppError, findAppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Observer } from '../../telemetry/observer.ts'
import type { TaskService } from '../tasks/service.ts'
import { Feed } from './feed.ts'
import { type Place, Stream, type StreamListener } from './stream.ts'

/** The tests make some of them shorter. */
export const streamLimits = {
  /** Streams of a user in this process. */
  perUser: 10,
  /** A user's changes are read at most this often. */
  readEveryMs: 50,
  /** Changes in an event. */
  entries: 200,
  /** A stream that is silent for this long gets a comment. */
  pingAfterMs: 15_000,
  /** Tokens that are looked up at a time, after the database was away. */
  checksAtOnce: 20,
  /** How long a stop waits until every client has received its last event. */
  farewellMs: 500,
}

interface Parts {
  db: Db
  log: Pick<Log, 'info' | 'error'>
  tasks: Pick<TaskService, 'changes'>
  authenticate: Authenticate
  streamsMax: number
}

/** The request for a stream. */
interface Opening {
  userId: UserId
  token: string
  /** Where it begins. */
  place: Place
  requestId: string
}

export type Streams = ReturnType<typeof createStreams>

/**
 * The live streams of this process (docs/decisions/0015-stream.md). A stream is a place in the changes: whatever wakes
 * it, it reads the changes after that place, so that none is missed and none is sent twice.
 */
export function createStreams({ db, log, tasks, authenticate, streamsMax }: Parts) {
  const feeds = new Map<UserId, Feed>()
  const byToken = new Map<string, Set<Stream>>()
  const newVersions = prepareSql<{ user_id: UserId; last_version: number }>(db, newVersionsQuery)
  const stats = { open: 0, entriesSent: 0, wakeUps: 0, tooSlow: 0 }
  let isStopping = false

  /** Throws when there are too many streams for another one of the user. */
  function requireRoom(userId: UserId) {
    if ((feeds.get(userId)?.streams.size ?? 0) >= streamLimits.perUser)
      throw new AppError('too_many_requests', { headers: { 'retry-after': '10' } })
    if (stats.open >= streamsMax) throw new AppError('unavailable')
  }

  /** Opens a stream and returns the body of its response. Throws as `requireRoom` does. */
  function open({ userId, token, place, requestId }: Opening): ReadableStream<Uint8Array> {
    requireRoom(userId)
    const feed = feeds.getOrInsertComputed(
      userId,
      () => new Feed(userId, { log, tasks, limits: streamLimits, stats }),
    )
    const sameToken = byToken.getOrInsertComputed(token, () => new Set())
    const startedAt = performance.now()
    const about = { request_id: requestId, user_id: userId }
    const listener: StreamListener = {
      onEnd(reason) {
        if (reason === 'too_slow') stats.tooSlow++
        log.info('stream ended', {
          ...about,
          reason,
          seconds: Math.round(performance.now() - startedAt) / 1000,
        })
      },
      onClose() {
        if (!feed.streams.delete(stream)) return
        if (feed.streams.size === 0) feeds.delete(userId)
        sameToken.delete(stream)
        if (sameToken.size === 0) byToken.delete(token)
        stats.open--
      },
      onDrain: () => void feed.advance(),
    }
    const stream = new Stream(place, listener, streamLimits.pingAfterMs)
    feed.streams.add(stream)
    sameToken.add(stream)
    stats.open++
    log.info('stream began', about)
    if (isStopping) stream.end('restarting')
    void feed.advance()
    return stream.body()
  }

  const observe: Observer = ({ method, userId }) => {
    if (userId && method !== 'GET' && method !== 'HEAD') feeds.get(userId as UserId)?.wake()
    return undefined
  }

  /** Wakes the streams whose user has changes from another process. */
  async function poll() {
    if (feeds.size === 0) return
    const versions = Array.from(feeds.values(), feed => feed.knownVersion)
    const found = await newVersions.execute({ users: `{${[...feeds.keys()]}}`, versions: `{${versions}}` })
    for (const { user_id, last_version } of found) feeds.get(user_id)?.wake(last_version)
  }

  /** Ends the streams whose token or session is over. While the database is away, they stay. */
  async function checkTokens() {
    const checks: Promise<unknown>[] = []
    for (const [token, streams] of byToken) {
      const caller = authenticate(token)
      if (!(caller instanceof Promise)) continue
      checks.push(
        caller.catch(error => {
          if (findAppError(error)?.code !== 'invalid_token') return
          for (const stream of streams) stream.end('invalid_token')
        }),
      )
      if (checks.length === streamLimits.checksAtOnce) await Promise.all(checks.splice(0))
    }
    await Promise.all(checks)
  }

  return {
    requireRoom,
    open,
    /** After any request that may have written, so that no module has to think of it. */
    observe,
    jobs: [
      // A job waits ± 10 % after its last run: so this is every 200 ms at most.
      { name: 'poll versions', everySeconds: 0.16, run: poll },
      { name: 'check the tokens of streams', everySeconds: 0.25, run: checkTokens },
    ],
    stats: (): Readonly<typeof stats> => stats,

    /** Ends all streams, also those that begin later. Resolves when every client that reads has received that. */
    async stop() {
      isStopping = true
      for (const { streams } of feeds.values()) for (const stream of streams) stream.end('restarting')
      const until = performance.now() + streamLimits.farewellMs
      while (stats.open > 0 && performance.now() < until) await Bun.sleep(10)
    },
  }
}

/** The users whose last version is not the one that is known here. Two arrays in a FROM: the builder has no words for that. */
const newVersionsQuery = sql`
  select user_id, last_version
  from unnest(${parameter('users', 'uuid[]')}, ${parameter('versions', 'bigint[]')}) as known(user_id, version)
  join ${userVersions} using (user_id)
  where last_version > known.version`
