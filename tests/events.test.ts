import { expect, test } from 'bun:test'
import { connect } from 'node:net'
import { decodeJwt, SignJWT } from 'jose'
import type { Driver } from '../src/db/driver.ts'
import { createDb } from '../src/db/drizzle.ts'
import { AppError } from '../src/lib/errors.ts'
import { sessionScopes } from '../src/lib/scope.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createTickets } from '../src/modules/auth/tickets.ts'
import { createTokens } from '../src/modules/auth/tokens.ts'
import { Stream } from '../src/modules/events/stream.ts'
import { createStreams, streamLimits } from '../src/modules/events/streams.ts'
import type { TaskService } from '../src/modules/tasks/service.ts'
import { makeApiToken } from './support/api-token.ts'
import { type EventReader, openEvents } from './support/event-stream.ts'
import { onBothDatabases, type Service, startService, testSettings, type User } from './support/harness.ts'
import { listening } from './support/listening.ts'
import { speak } from './support/mcp.ts'
import { readPrometheus, sampled } from './support/prometheus.ts'
import { stopwatch } from './support/stopwatch.ts'
import { serviceOn } from './support/task-service.ts'
import { until } from './support/until.ts'
import { expectError } from './support/wire.ts'

const metricsToken = 'metrics-token-metrics-token'
const events = '/tasks/events'

/** Tasks with the largest description, in batches of 100. */
async function fill(api: Service, { token }: User, batches: number) {
  const task = { title: 'Buy milk', description: '牛'.repeat(2000) }
  for (let i = 0; i < batches; i++) {
    const operations = Array.from({ length: 100 }, () => ({ op: 'create', task }))
    expect((await api.post('/tasks/batch', { token, json: { operations } })).status).toBe(200)
  }
}

const unreachable = (): never => {
  throw new Error('no job checks tokens')
}

/** Streams of no server: their jobs do not run, and no request comes through them. */
function streamsWithoutJobs(
  api: Service,
  changes?: TaskService['changes'],
  others: Partial<Parameters<typeof createStreams>[0]> = {},
) {
  const tasks = serviceOn(api)
  const log = { info() {}, error() {} }
  const parts = { db: createDb(api.driver), log, authenticate: unreachable, streamsMax: 3, ...others }
  return { tasks, streams: createStreams({ ...parts, tasks: changes ? { changes } : tasks }) }
}

/** A stream whose client does not read. */
async function openUnread(api: Service, { token }: User) {
  const { port, hostname } = new URL(api.url)
  const socket = connect(Number(port), hostname)
  socket.write(`GET /api/v1${events} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`)
  await new Promise(resolve => socket.once('readable', resolve))
  return {
    /** Reads until a text comes, and returns everything. */
    async read(text: string) {
      let received = ''
      socket.on('data', data => {
        received += data
      })
      await until(() => received.includes(text))
      socket.destroy()
      return received
    },
    destroy: () => socket.destroy(),
  }
}

/** Changes all tasks of a user again and again, until one of the user's streams is too slow; what a reader was sent. */
async function flood(api: Service, user: User, reader: EventReader): Promise<number> {
  for (let round = 0; !ends(api, user).includes('too_slow'); round++) {
    if (round === 30) throw new Error('no stream was too slow')
    const count = reader.events.length
    await api.sql(
      `with numbered as (select id, row_number() over () as number from tasks where user_id = $1),
       next as (update user_versions set last_version = last_version + 1000 where user_id = $1 returning last_version)
       update tasks set version = last_version - number from next, numbered where tasks.id = numbered.id`,
      [user.id],
    )
    await until(() => reader.events.length > count)
  }
  return reader.text().length
}

async function measured(api: Service, name: string) {
  const { body } = await api.get(`${api.url}/metrics`, { token: metricsToken })
  return sampled(readPrometheus(body), name)!
}

const ends = (api: Service, { id }: User) =>
  api
    .logs()
    .filter(({ msg, user_id }) => msg === 'stream ended' && user_id === id)
    .map(({ reason }) => reason)

const ticketFor = async (api: Service, { token }: User): Promise<string> =>
  (await api.post('/auth/tickets', { token, json: { for: 'events' } })).body.ticket

onBothDatabases(
  'the live stream',
  api => {
    test('begins now, and sends each change as /tasks/changes returns it', async () => {
      const ada = await api.user()
      await api.task(ada, { title: 'From before' })
      const stream = await openEvents(api, ada)
      const hello = await stream.receive('hello')
      const task = await api.task(ada, { title: 'New\nline "quoted" \u2028 牛' })
      await stream.receive('changes')
      const { body } = await api.get(`/tasks/changes?since=${hello.id}`, { token: ada.token })

      expect(stream.text()).toStartWith(
        `retry: 2000\nevent: hello\nid: ${hello.id}\ndata: {"cursor":"${hello.id}"}\n\n`,
      )
      expect(stream.events.slice(1)).toEqual([{ event: 'changes', id: body.cursor, data: body }])
      expect(body.tasks).toEqual([task])
      expect(
        api.logs().find(({ msg, user_id }) => msg === 'stream began' && user_id === ada.id),
      ).toMatchObject({
        request_id: stream.headers.get('x-request-id'),
      })
      expect(Object.fromEntries(stream.headers)).toMatchObject({
        'content-type': 'text/event-stream',
        'cache-control': 'no-store, no-transform',
        'x-accel-buffering': 'no',
      })
      await stream.close()
    })

    test('sends whatever a write changes', async () => {
      const ada = await api.user()
      const stream = await openEvents(api, ada)
      const { id } = await api.task(ada)
      const send = async (method: string, path: string, json?: object) => {
        const count = stream.events.length
        expect((await api.request(method, path, { token: ada.token, json })).status).toBeLessThan(300)
        await until(() => stream.events.length > count)
        const { tasks, deleted, lists, deleted_lists } = stream.events.at(-1)!.data
        const titles = tasks.map((task: any) => [task.title, task.status])
        return [...titles, ...deleted, ...lists.map((list: any) => list.name), ...deleted_lists]
      }
      await stream.receive('changes')

      expect(await send('PATCH', `/tasks/${id}`, { status: 'completed' })).toEqual([
        ['Buy milk', 'completed'],
      ])
      expect(await send('PUT', `/tasks/${id}`, { title: 'Bread' })).toEqual([['Bread', 'completed']])
      expect(await send('DELETE', `/tasks/${id}`)).toEqual([id])
      expect(await send('POST', `/tasks/${id}/restore`)).toEqual([['Bread', 'completed']])
      const operations = [
        { op: 'create', task: { title: 'Eggs' } },
        { op: 'delete', id },
      ]
      expect(await send('POST', '/tasks/batch', { operations })).toEqual([['Eggs', 'pending'], id])
      const list = crypto.randomUUID()
      expect(await send('POST', '/lists', { id: list, name: 'Shopping' })).toEqual(['Shopping'])
      expect(await send('DELETE', `/lists/${list}`)).toEqual([list])
      expect(await send('DELETE', `/tasks/${stream.changes().tasks.at(-1).id}?permanent=true`)).toHaveLength(
        1,
      )
      await stream.close()
    })

    test('begins with what was missed, at most 200 entries an event', async () => {
      const ada = await api.user()
      const { body: start } = await api.get('/tasks/changes', { token: ada.token })
      await fill(api, ada, 5)
      const fromStart = await openEvents(api, { ...ada, query: `?since=${start.cursor}` })
      await fromStart.receive('changes', 3)
      const [, first, second, third] = fromStart.events
      // What a browser sends when it connects again goes before the address.
      const headers = { 'last-event-id': second!.id! }
      const fromSecond = await openEvents(api, { ...ada, query: `?since=${start.cursor}`, headers })
      await fromSecond.receive('changes')

      expect([first, second, third].map(event => event!.data.tasks.length)).toEqual([200, 200, 100])
      expect(new Set(fromStart.changes().tasks.map(({ id }) => id)).size).toBe(500)
      expect(fromSecond.events).toEqual([
        { event: 'hello', id: second!.id!, data: { cursor: second!.id } },
        third!,
      ])
      await Promise.all([fromStart.close(), fromSecond.close()])
    })

    test('reads a long past to its end without being woken again', async () => {
      const ada = await api.user()
      for (let i = 0; i < 5; i++) {
        const operations = Array.from({ length: 100 }, () => ({ op: 'create', task: { title: 'long past' } }))
        await api.post('/tasks/batch', { token: ada.token, json: { operations } })
      }
      const { tasks, streams } = streamsWithoutJobs(api)
      const place = await tasks.changes(ada.id, { limit: 1 })
      const open = () => streams.open({ userId: ada.id, token: '', place, requestId: '' })
      const reader = open().getReader()
      // Its client does not read: nothing is read for it ahead.
      const idle = open()

      let text = ''
      while (text.split('long past').length - 1 < 499) {
        // So slow that the service has nothing to read for it in between.
        await Bun.sleep(2 * streamLimits.readEveryMs)
        text += new TextDecoder().decode((await reader.read()).value)
      }
      expect(text.match(/^event: changes$/gm)).toHaveLength(3)
      expect(streams.stats().entriesSent).toBe(499 + 200)
      await Promise.all([reader.cancel(), idle.cancel()])
    })

    test('reads for the streams of a user in turn, wherever they are', async () => {
      const ada = await api.user()
      await fill(api, ada, 3)
      const { tasks } = streamsWithoutJobs(api)
      const places = await Promise.all([200, 2, 1].map(limit => tasks.changes(ada.id, { limit })))
      const reads: unknown[] = []
      const { streams } = streamsWithoutJobs(api, (userId, query) => {
        reads.push(query.since)
        return tasks.changes(userId, query)
      })
      const bodies = places.map(place => {
        const body = streams.open({ userId: ada.id, token: '', place, requestId: '' })
        return new Response(body).text()
      })

      await until(() => reads.length >= 3)
      expect(reads.slice(0, 3)).toEqual(places.map(({ cursor }) => cursor))
      await streams.stop()
      await Promise.all(bodies)
    })

    test('waits for the next poll when the database does not answer', async () => {
      const ada = await api.user()
      const { tasks } = streamsWithoutJobs(api)
      let [reads, isAway] = [0, false]
      const { streams } = streamsWithoutJobs(api, (...query) => {
        reads++
        return isAway ? Promise.reject(new AppError('unavailable')) : tasks.changes(...query)
      })
      const place = await tasks.changesStart(ada.id, undefined)
      await api.task(ada, { title: 'Meanwhile' })
      async function open() {
        const reader = streams.open({ userId: ada.id, token: '', place, requestId: '' }).getReader()
        await reader.read()
        return { reader, next: reader.read() }
      }
      // Its version is known here from now on.
      const first = await open()
      await first.next
      await Bun.sleep(streamLimits.readEveryMs)
      ;[reads, isAway] = [0, true]
      const second = await open()
      await Bun.sleep(3 * streamLimits.readEveryMs)
      expect(reads).toBe(1)

      isAway = false
      await streams.jobs[0]!.run()
      expect(new TextDecoder().decode((await second.next).value)).toContain('"title":"Meanwhile"')
      for (const { reader } of [first, second]) await reader.cancel()
    })

    test('is read again at once for what is written during a read', async () => {
      const ada = await api.user()
      let isFirst = true
      const { tasks, streams } = streamsWithoutJobs(api, async (...query) => {
        const page = await tasks.changes(...query)
        if (isFirst) {
          isFirst = false
          await api.task(ada, { title: 'Meanwhile' })
          streams.observe({ method: 'POST', userId: ada.id } as never)
        }
        return page
      })
      const place = await tasks.changesStart(ada.id, undefined)
      const reader = streams.open({ userId: ada.id, token: '', place, requestId: '' }).getReader()
      await reader.read()

      const { value } = await reader.read()

      expect(new TextDecoder().decode(value)).toContain('"title":"Meanwhile"')
      await reader.cancel()
    })

    test('brings what the first read of one stream finds to the other streams of its user', async () => {
      const ada = await api.user()
      const { tasks, streams } = streamsWithoutJobs(api)
      const place = await tasks.changes(ada.id, {})
      const readers = [1, 2].map(async number => {
        if (number === 2) await api.task(ada, { title: 'Found' })
        const opening = { userId: ada.id, token: '', place, requestId: '' }
        const reader = streams.open(opening).getReader()
        return { reader, hello: await reader.read() }
      })
      for (const { reader } of await Promise.all(readers)) {
        const { value } = await reader.read()
        expect(new TextDecoder().decode(value)).toContain('"title":"Found"')
        await reader.cancel()
      }
    })

    test('refuses a wrong cursor and one that is too old before it begins', async () => {
      const [ada, eve] = [await api.user(), await api.user()]
      const { body } = await api.get('/tasks/changes', { token: ada.token })
      const foreign = await api.get(`${events}?since=${body.cursor}`, { token: eve.token })
      const lastEventId = await api.get(events, { token: ada.token, headers: { 'last-event-id': 'x' } })
      await api.sql('update user_versions set last_version = 9, forgotten_version = 9 where user_id = $1', [
        ada.id,
      ])
      const old = await api.get(`${events}?since=${body.cursor}`, { token: ada.token })
      const unknown = await api.get(`${events}?sinc=${body.cursor}`, { token: ada.token })

      expect([foreign.status, foreign.body.detail[0].loc]).toEqual([422, ['query', 'since']])
      expect([lastEventId.status, lastEventId.body.detail[0].loc]).toEqual([422, ['header', 'last-event-id']])
      expectError(old, 410, 'cursor_expired', 'Cursor is too old: start again without one')
      expect([unknown.status, unknown.body.detail[0].type]).toEqual([422, 'extra_forbidden'])
    })

    test('refuses whatever else is sent for a cursor or a ticket', async () => {
      const { token } = await api.user()
      for (const text of [
        '%00',
        '%ff',
        '%22',
        '0.0',
        'x'.repeat(201),
        'AA=='.repeat(20),
        '%f0%9f%8d%8e',
        '-1',
      ]) {
        expect((await api.get(`${events}?since=${text}`, { token })).status).toBe(422)
        expect((await api.get(`${events}?ticket=${text}`)).status).toBe(401)
      }
      for (const query of ['?ticket=', '?ticket[]=x', '?ticket=x&ticket=y', '?since='])
        expect((await api.get(events + query)).status).toBe(401)
      expect((await api.get(`${events}?ticket=x&limit=5`, { token })).status).toBe(422)
    })

    test('answers HEAD without a body, and keeps nothing open for it', async () => {
      const ada = await api.user()
      const answer = await api.request('HEAD', events, { token: ada.token })

      expect([answer.status, answer.body, answer.headers.get('content-type')]).toEqual([
        200,
        undefined,
        'text/event-stream',
      ])
      expect(api.logs().filter(({ msg, user_id }) => msg === 'stream began' && user_id === ada.id)).toEqual(
        [],
      )
    })

    test('opens with a ticket once, on a session that is alive', async () => {
      const ada = await api.user()
      const made = await api.post('/auth/tickets', { token: ada.token, json: { for: 'events' } })
      const { ticket } = made.body
      const [stored] = await api.sql('select hash from tickets where user_id = $1', [ada.id])
      const stream = await openEvents(api, { query: `?ticket=${ticket}` })
      await stream.receive('hello')
      const again = await api.get(`${events}?ticket=${ticket}`)
      const task = await api.task(ada)
      await stream.receive('changes')

      expect([made.status, made.body]).toEqual([201, { ticket: expect.any(String), expires_in: 60 }])
      expect(Buffer.from(ticket, 'base64url').length).toBe(16 + 32)
      expect(stored).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)])
      expect(stream.changes().tasks).toEqual([task])
      expectError(again, 401, 'invalid_token', 'Could not validate credentials')
      expect(JSON.stringify(api.logs())).not.toContain(ticket)

      const late = await ticketFor(api, ada)
      await api.sql(`update tickets set expires_at = now() - interval '1 s' where user_id = $1`, [ada.id])
      const signedOut = await ticketFor(api, ada)
      expect((await api.get(`${events}?ticket=${late}`)).status).toBe(401)
      await api.post('/auth/logout', { token: ada.token })
      expect((await stream.receive('end')).data).toEqual({ code: 'invalid_token' })
      expect((await api.get(`${events}?ticket=${signedOut}`)).status).toBe(401)
      expectError(await api.get(events), 401, 'not_authenticated', 'Not authenticated')
      expect((await api.post('/auth/tickets', { token: ada.token })).status).toBe(401)
    })

    test('opens with no ticket from before a new SECRET_KEY', async () => {
      const { id, token } = await api.user()
      const ticketsUnder = (secretKey: string) => {
        const tokens = createTokens({ secretKey, algorithm: 'HS256', lifetimeSeconds: 60 })
        return createTickets({ db: createDb(api.driver), tokens, secretKey })
      }
      const sessionId = decodeJwt(token).sid as string
      const [before, after] = ['the key of before', 'the key of after'].map(ticketsUnder)
      const { ticket } = await before!.issue({ id: id as UserId, sessionId, scopes: sessionScopes })

      expect(await before!.tokenOf(ticket)).toBeString()
      await expect(after!.tokenOf(ticket)).rejects.toMatchObject({ code: 'invalid_token' })
      await expect(after!.use(ticket)).rejects.toMatchObject({ code: 'invalid_token' })
    })

    test('stays open while a table is missing, and goes on', async () => {
      const ada = await api.user()
      const stream = await openEvents(api, ada)
      await stream.receive('hello')
      await api.sql('alter table task_tombstones rename to tombstones_away', [])
      const { id } = await api.task(ada)
      expect((await api.get('/tasks/changes', ada)).status).toBe(503)
      // By then the stream has tried, too.
      await Bun.sleep(4 * streamLimits.readEveryMs)
      await api.sql('alter table tombstones_away rename to task_tombstones', [])
      await stream.receive('changes')
      await stream.close()

      expect(stream.changes().tasks).toMatchObject([{ id }])
      expect(api.logs().filter(({ msg }) => msg === 'stream failed')).toEqual([])
    })

    test('uses no ticket up with a request that opens none', async () => {
      const ada = await api.user()
      const query = `?ticket=${await ticketFor(api, ada)}`
      const statuses = [
        (await api.request('HEAD', events + query)).status,
        (await api.get(`${events}${query}&since=x`)).status,
        (await api.get(`${events}${query}&sinc=x`)).status,
      ]
      const stream = await openEvents(api, { query })
      await stream.receive('hello')
      await stream.close()

      expect([...statuses, stream.status]).toEqual([200, 422, 422, 200])
      expect((await api.request('HEAD', events + query)).status).toBe(401)
    })

    test('of one ticket that is used by ten at once opens one', async () => {
      const ada = await api.user()
      const query = `?ticket=${await ticketFor(api, ada)}`
      const streams = await Promise.all(Array.from({ length: 10 }, () => openEvents(api, { query })))

      expect(streams.map(({ status }) => status).sort()).toEqual([200, ...Array(9).fill(401)])
      await Promise.all(streams.map(stream => stream.close()))
    })

    test('a user has at most a hundred tickets; the oldest go', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      const first = await ticketFor(api, ada)
      const ofBob = await ticketFor(api, bob)
      const second = await ticketFor(api, ada)
      await api.sql(
        `insert into tickets (user_id, session_id, hash, expires_at)
         select $1, gen_random_uuid(), 'of another ticket ' || n, now() + interval '1 hour' from generate_series(1, 98) n`,
        [ada.id],
      )
      const last = await ticketFor(api, ada)

      const kept = await api.sql('select count(*)::int from tickets where user_id = $1', [ada.id])
      expect(kept).toEqual([[100]])
      expect((await api.request('HEAD', `${events}?ticket=${first}`)).status).toBe(401)
      for (const ticket of [second, last, ofBob])
        expect((await api.request('HEAD', `${events}?ticket=${ticket}`)).status).toBe(200)

      // The clock was set back.
      await api.sql(
        `insert into tickets (user_id, session_id, hash, expires_at)
         select $1, gen_random_uuid(), 'of a ticket ' || n, now() + interval '1 hour' from generate_series(1, 100) n`,
        [bob.id],
      )
      const made = await ticketFor(api, bob)
      expect((await api.request('HEAD', `${events}?ticket=${made}`)).status).toBe(200)
    })

    test('a ticket is for nothing else', async () => {
      const { token } = await api.user()
      for (const json of [{ for: 'tasks' }, {}])
        expect((await api.post('/auth/tickets', { token, json })).status).toBe(422)
      expect((await api.get(`/tasks?ticket=${await ticketFor(api, { token } as User)}`)).status).toBe(401)
    })

    test('ends when the session is over, the token has expired or the account is gone; others go on', async () => {
      const [ada, bob, eve] = [await api.user(), await api.user(), await api.user()]
      const claims = JSON.parse(Buffer.from(ada.token.split('.')[1]!, 'base64url').toString())
      const shortLived = await new SignJWT({ sub: claims.sub, sid: claims.sid })
        .setProtectedHeader({ alg: 'HS256' })
        .setExpirationTime(new Date(Date.now() + 1500))
        .sign(Buffer.from(testSettings.SECRET_KEY))
      // A token that stays valid is looked at before those that do not.
      const other = await openEvents(api, eve)
      const [expiring, gone] = await Promise.all([
        openEvents(api, { token: shortLived }),
        openEvents(api, bob),
      ])
      await api.delete('/users/me', { token: bob.token, json: { password: bob.password } })

      for (const stream of [expiring, gone]) {
        expect((await stream.receive('end')).data).toEqual({ code: 'invalid_token' })
        await stream.done
      }
      await api.task(eve)
      await other.receive('changes')
      await other.close()
      expect(ends(api, bob)).toEqual(['invalid_token'])
    })

    test('sends a user nothing of another one', async () => {
      const users = await Promise.all(Array.from({ length: 5 }, () => api.user()))
      const streams = await Promise.all(users.map(user => openEvents(api, user)))
      await Promise.all(users.flatMap(user => Array.from({ length: 10 }, () => api.task(user))))

      await until(() => streams.every(stream => stream.changes().tasks.length === 10))
      for (const [i, stream] of streams.entries()) {
        expect(new Set(stream.changes().tasks.map(task => task.user_id))).toEqual(new Set([users[i]!.id]))
        await stream.close()
      }
    })

    test('wakes at once for a change of an assistant', async () => {
      // Nothing polls here: only the request itself can wake the stream.
      const { url, stop } = listening(api)
      const ada = await api.user()
      const { token } = await makeApiToken(api, ada, ['tasks:write'])
      const stream = await openEvents({ url }, { token })
      await stream.receive('hello')
      await speak({ ...api, url }, { token }).call('add_tasks', { tasks: [{ title: 'By an assistant' }] })

      expect((await stream.receive('changes')).data.tasks[0].title).toBe('By an assistant')
      await stream.close()
      await stop()
    })

    test('is woken by what may have changed something, and not by what only reads', async () => {
      const ada = await api.user()
      const task = await api.task(ada)
      const stream = await openEvents(api, ada)
      await stream.receive('hello')
      const wakeUps = () => measured(api, 'stream_wake_ups_total')
      const before = await wakeUps()
      for (const path of ['/tasks', '/tasks/changes', `/tasks/${task.id}`, '/users/me'])
        for (const method of ['GET', 'HEAD'])
          expect((await api.request(method, path, { token: ada.token })).status).toBe(200)
      expect(await wakeUps()).toBe(before)

      await api.task(ada)
      await stream.receive('changes')
      expect(await wakeUps()).toBeGreaterThan(before)
      await stream.close()
    })

    test('wakes within a second for a change that did not come through this process', async () => {
      const ada = await api.user()
      const task = await api.task(ada)
      const stream = await openEvents(api, ada)
      await stream.receive('hello')
      const elapsed = stopwatch()
      for (let i = 1; i <= 3; i++) {
        await api.sql(
          `with next as (update user_versions set last_version = last_version + 1 where user_id = $1 returning last_version)
           update tasks set title = 'By another process', version = last_version from next where id = $2`,
          [ada.id, task.id],
        )
        expect((await stream.receive('changes', i)).data.tasks[0].title).toBe('By another process')
      }

      expect(elapsed()).toBeLessThan(3 * 800)
      await stream.close()
    })

    test('a user has at most ten, and one that is closed makes room, also for a ticket', async () => {
      const ada = await api.user()
      const streams = await Promise.all(Array.from({ length: 12 }, () => openEvents(api, ada)))
      const open = streams.filter(({ status }) => status === 200)
      const [refused] = streams.filter(({ status }) => status === 429)
      expect([open.length, streams.length - open.length]).toEqual([10, 2])
      expect(refused!.headers.get('retry-after')).toBe('10')
      expect(JSON.parse(refused!.text()).code).toBe('too_many_requests')
      const query = `?ticket=${await ticketFor(api, ada)}`
      expect((await openEvents(api, { query })).status).toBe(429)

      await open[0]!.close()
      await until(() => ends(api, ada).length === 1)
      const next = await openEvents(api, { query })
      expect(next.status).toBe(200)
      await Promise.all([next, ...open].map(stream => stream.close()))
      await until(() => ends(api, ada).length === 11)
      expect(new Set(ends(api, ada))).toEqual(new Set(['client']))
      expect(await measured(api, 'streams_too_slow_total')).toBe(0)
    })

    test('goes on when another stream of the user is closed', async () => {
      const ada = await api.user()
      const [closed, open] = [await openEvents(api, ada), await openEvents(api, ada)]
      await api.task(ada)
      await Promise.all([closed.receive('changes'), open.receive('changes')])
      await closed.close()
      await until(() => ends(api, ada).length === 1)
      const task = await api.task(ada)

      expect((await open.receive('changes', 2)).data.tasks).toEqual([task])
      await open.close()
    })

    test('reads the changes of a user at most every 50 ms, however fast they are made', async () => {
      const ada = await api.user()
      const begunAt = performance.now()
      const stream = await openEvents(api, ada)
      for (let i = 0; i < 40; i++) await api.task(ada)
      await until(() => stream.changes().tasks.length === 40)

      const reads = stream.events.length - 1
      expect(reads).toBeLessThanOrEqual(1 + (performance.now() - begunAt) / 50)
      expect(streamLimits.readEveryMs).toBe(50)
      await stream.close()
    })

    test('of clients that go away while it opens nothing is left', async () => {
      const ada = await api.user()
      const { port, hostname } = new URL(api.url)
      const head = `GET /api/v1${events} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ada.token}\r\n\r\n`
      for (let i = 0; i < 30; i++) {
        const socket = connect(Number(port), hostname, () =>
          socket.write(head, () => setTimeout(() => socket.destroy(), i % 5)),
        )
        await new Promise(resolve => socket.on('close', resolve))
      }
      await until(async () => (await measured(api, 'streams_open')) === 0)
      const stream = await openEvents(api, ada)
      expect(stream.status).toBe(200)
      await stream.close()
    })

    test('ends for a client that does not read, and the others go on', async () => {
      const ada = await api.user()
      const stalled = await openUnread(api, ada)
      const other = await openEvents(api, ada)
      await fill(api, ada, 2)
      const sent = await flood(api, ada, other)

      expect(sent).toBeGreaterThan(1024 * 1024)
      // When it reads at last, it learns why, and what it has received is where it goes on.
      const received = await stalled.read('data: {"code":"too_slow"}')
      const since = received
        .match(/^id: .*$/gm)!
        .at(-1)!
        .slice('id: '.length)
      const next = await openEvents(api, { ...ada, query: `?since=${since}` })
      await next.receive('hello')
      await until(() => next.cursor() === other.cursor())
      expect(ends(api, ada)).toEqual(['too_slow'])
      expect(await measured(api, 'streams_too_slow_total')).toBe(1)
      await Promise.all([other.close(), next.close()])
    }, 60_000)

    test('a silent stream gets a comment', async () => {
      const ada = await api.user()
      const { pingAfterMs } = streamLimits
      expect(pingAfterMs).toBe(15_000)
      streamLimits.pingAfterMs = 200
      const stream = await openEvents(api, ada).finally(() => {
        streamLimits.pingAfterMs = pingAfterMs
      })
      await stream.receive(': ping', 2)
      await stream.close()
      await until(() => ends(api, ada).length === 1)
      const { seconds } = api.logs().find(({ msg, user_id }) => msg === 'stream ended' && user_id === ada.id)!
      expect(seconds).toBeGreaterThan(0.39)
      expect(seconds).toBeLessThan(390)
    })

    test('ends when a read fails, which is logged with its user, and nothing is looked up for it any more', async () => {
      const { id: userId } = await api.user()
      const [logged, lookedUp]: [unknown[], string[]] = [[], []]
      let polls = 0
      const query: Driver['query'] = (...statement) => {
        polls++
        return api.driver.query(...statement)
      }
      const { streams } = streamsWithoutJobs(api, () => Promise.reject(new TypeError('no')), {
        db: createDb({ ...api.driver, query }),
        log: { info() {}, error: (message, fields) => void logged.push([message, fields]) },
        authenticate: async token => {
          lookedUp.push(token)
          return { id: userId, sessionId: '', scopes: new Set() }
        },
      })
      const open = () =>
        new Response(
          streams.open({ userId, token: 'hers', place: { cursor: '', version: 0 }, requestId: '' }),
        )
      const checkTokens = streams.jobs[1]!.run

      const texts = [open().text(), open().text()]
      await checkTokens()
      for (const text of await Promise.all(texts)) expect(text).toContain('{"code":"restarting"}')
      await checkTokens()

      const fields = { user_id: userId, error: 'TypeError', message: 'no' }
      expect(logged).toContainEqual(['stream failed', expect.objectContaining(fields)])
      expect(lookedUp).toEqual(['hers'])
      await streams.jobs[0]!.run()
      expect(polls).toBe(0)
    })

    test.each([
      ['invalid_token', 'invalid_token'],
      ['cursor_expired', 'restarting'],
    ] as const)(
      'ends when a read is refused with %s: the client receives %s, and no error is logged',
      async (code, reason) => {
        const { id: userId } = await api.user()
        const logged: string[] = []
        const { streams } = streamsWithoutJobs(api, () => Promise.reject(new AppError(code)), {
          log: { info() {}, error: message => void logged.push(message) },
        })
        const place = { cursor: '', version: 0 }
        const body = streams.open({ userId, token: '', place, requestId: '' })

        expect(await new Response(body).text()).toEndWith(`data: {"code":"${reason}"}\n\n`)
        expect(logged).toEqual([])
      },
    )

    test('stays while the database does not say whether its token is valid, and ends with the others of that token when it says no', async () => {
      const { id: userId } = await api.user()
      const answers = ['unavailable', 'invalid_token'] as const
      const [checks, ends]: [number[], unknown[]] = [[], []]
      const { tasks, streams } = streamsWithoutJobs(api, undefined, {
        log: {
          info: (message, fields) => void (message === 'stream ended' && ends.push(fields?.reason)),
          error() {},
        },
        authenticate: async () => {
          throw new AppError(answers[checks.push(0) - 1]!)
        },
      })
      const place = await tasks.changesStart(userId, undefined)
      const open = () => new Response(streams.open({ userId, token: '', place, requestId: '' })).text()
      const texts = [open(), open()]
      // One that has left takes no other with it.
      await streams.open({ userId, token: '', place, requestId: '' }).cancel()
      ends.length = 0

      // Within a second.
      expect(streams.jobs[1]!.everySeconds).toBeLessThan(0.8)
      await streams.jobs[1]!.run()
      expect(ends).toEqual([])
      await streams.jobs[1]!.run()
      expect(ends).toEqual(['invalid_token', 'invalid_token'])
      await Promise.all(texts)
    })

    test('has its token looked up with at most nineteen others at a time', async () => {
      const { id: userId } = await api.user()
      let [now, most, all] = [0, 0, 0]
      const { streams } = streamsWithoutJobs(api, () => new Promise(() => {}), {
        streamsMax: 50,
        authenticate: async () => {
          most = Math.max(most, ++now)
          await Bun.sleep(1)
          now--
          all++
          return { id: userId, sessionId: '', scopes: new Set() }
        },
      })
      const bodies = Array.from({ length: 50 }, (_, i) =>
        streams.open({
          userId: `${i % 10}` as UserId,
          token: `${i}`,
          place: { cursor: '', version: 0 },
          requestId: '',
        }),
      )

      await streams.jobs[1]!.run()

      expect([most, all]).toEqual([20, 50])
      for (const body of bodies) await body.cancel()
    })

    test('is documented with its type and an example', async () => {
      const { body } = await api.get(`${api.url}/openapi.json`)
      const { responses } = body.paths['/api/v1/tasks/events'].get
      expect(Object.keys(responses['200'].content)).toEqual(['text/event-stream'])
      expect(responses['200'].content['text/event-stream'].example).toStartWith('retry: 2000\nevent: hello\n')
      expect(Object.keys(responses)).toEqual(expect.arrayContaining(['401', '410', '422', '429', '503']))
    })
  },
  { METRICS_TOKEN: metricsToken },
)

test('a client that leaves more than a MiB unread is too slow', async () => {
  const reasons: string[] = []
  const place = { cursor: '', version: 0 }
  const listener = { onEnd: (reason: string) => reasons.push(reason), onClose() {}, onDrain() {} }
  const stream = new Stream(place, listener, streamLimits.pingAfterMs)
  const send = (bytes: number) => stream.advance(place, new Uint8Array(bytes), false)

  send(1024 * 1024 - 1000)
  send(1000)
  expect(reasons).toEqual([])
  send(1)
  expect(reasons).toEqual(['too_slow'])
  // The rest is not kept for it.
  const text = await new Response(stream.body()).text()
  expect(text).toBe('event: end\ndata: {"code":"too_slow"}\n\n')
})

test('a comment comes when nothing else has for its time', async () => {
  const place = { cursor: '', version: 0 }
  const pingAfterMs = 300
  const stream = new Stream(place, { onEnd() {}, onClose() {}, onDrain() {} }, pingAfterMs)
  const reader = stream.body().getReader()
  await reader.read()
  await Bun.sleep(90)

  const sentAt = performance.now()
  stream.advance(place, Buffer.from('something'), false)
  await reader.read()

  expect(`${Buffer.from((await reader.read()).value!)}`).toBe(': ping\n\n')
  expect(performance.now() - sentAt).toBeGreaterThan(pingAfterMs - 10)
  await reader.cancel()
})

test('a stream ends once, with nothing after it, and keeps no comments for a client that does not read', async () => {
  const reasons: string[] = []
  const listener = { onEnd: (reason: string) => reasons.push(reason), onClose() {}, onDrain() {} }
  const place = { cursor: '', version: 0 }
  const stream = new Stream(place, listener, 1)
  await Bun.sleep(20)
  stream.end('restarting')
  stream.end('invalid_token')
  stream.advance(place, Buffer.from('late'), false)

  const text = await new Response(stream.body()).text()
  expect(reasons).toEqual(['restarting'])
  expect(text.split('\n\n').slice(1)).toEqual(['event: end\ndata: {"code":"restarting"}', ''])
})

test('of a stream that has ended nothing is kept in memory', async () => {
  let collected = 0
  const registry = new FinalizationRegistry(() => collected++)
  const listener = { onEnd() {}, onClose() {}, onDrain() {} }
  for (let i = 0; i < 100; i++) {
    const stream = new Stream({ cursor: '', version: 0 }, listener, streamLimits.pingAfterMs)
    registry.register(stream, i)
    stream.end('restarting')
  }

  // The collector may take a few values on the stack for references.
  await until(() => {
    Bun.gc(true)
    return collected > 50
  })
})

test.each(['postgres', 'embedded'] as const)(
  'a change is read once, for all streams that are there (%s)',
  async kind => {
    const api = await startService(kind)
    const ada = await api.user()
    const tasks = serviceOn(api)
    let reads = 0
    const counted: typeof tasks.changes = (...query) => {
      reads++
      return tasks.changes(...query)
    }
    const { streams } = streamsWithoutJobs(api, counted)
    const [poll] = streams.jobs
    const place = await tasks.changesStart(ada.id, undefined)
    for (const requestId of ['one', 'two'])
      void new Response(streams.open({ userId: ada.id, token: requestId, place, requestId })).text()
    await until(() => reads > 0)
    await Bun.sleep(200)
    reads = 0

    await poll!.run()
    await api.task(ada)
    for (let i = 0; i < 3; i++) {
      await poll!.run()
      await until(() => reads > 0)
      await Bun.sleep(100)
    }
    expect(reads).toBe(1)
    expect(streams.stats()).toMatchObject({ open: 2, entriesSent: 2, tooSlow: 0 })
    await streams.stop()
    await api.stop()
  },
)

test('a stop waits half a second for a client that does not read its last event, and for no other', async () => {
  const api = await startService('embedded')
  const { id: userId } = await api.user()
  const stopAfter = async (reads: boolean) => {
    const { streams } = streamsWithoutJobs(api)
    const body = streams.open({ userId, token: '', place: { cursor: '', version: 0 }, requestId: '' })
    if (reads) void new Response(body).text()
    const [begin, elapsed] = [performance.now(), stopwatch()]
    await streams.stop()
    return { atMost: performance.now() - begin, atLeast: elapsed() }
  }

  const unread = await stopAfter(false)
  expect(unread.atMost).toBeGreaterThan(490)
  expect(unread.atLeast).toBeLessThan(1500)
  expect((await stopAfter(true)).atLeast).toBeLessThan(450)
  await api.stop()
})

test.each(['postgres', 'embedded'] as const)('a full process refuses another stream (%s)', async kind => {
  const api = await startService(kind, { STREAMS_MAX: '2' })
  const [ada, bob] = [await api.user(), await api.user()]
  const streams = [await openEvents(api, ada), await openEvents(api, bob)]
  const query = `?ticket=${await ticketFor(api, bob)}`
  const refused = await api.get(events + query)

  expectError(refused, 503, 'unavailable', 'Service temporarily unavailable')
  expect(refused.headers.get('retry-after')).toBe('2')
  await streams[0]!.close()
  await until(() => ends(api, ada).length === 1)
  streams.push(await openEvents(api, { query }))
  expect(streams[2]!.status).toBe(200)
  await Promise.all(streams.map(stream => stream.close()))
  await api.stop()
})

test.each(['postgres', 'embedded'] as const)(
  'a stop ends the streams at once and waits for none (%s)',
  async kind => {
    const api = await startService(kind, { SHUTDOWN_DELAY_SECONDS: '1' })
    const [ada, bob] = [await api.user(), await api.user()]
    const streams = await Promise.all(Array.from({ length: 10 }, () => openEvents(api, ada)))
    // One client does not read, and its connection is full.
    const stalled = await openUnread(api, bob)
    await fill(api, bob, 2)
    await flood(api, bob, await openEvents(api, bob))
    const elapsed = stopwatch(process.pid)
    const stopped = api.stop()
    for (const stream of streams) expect((await stream.receive('end')).data).toEqual({ code: 'restarting' })
    // Until load balancers have noticed, a client may come back here: it is sent on without an error.
    const late = await openEvents(api, ada)
    expect([late.status, (await late.receive('end')).data]).toEqual([200, { code: 'restarting' }])
    await stopped
    expect(elapsed()).toBeLessThan(5000)
    expect(ends(api, ada)).toEqual(Array(11).fill('restarting'))
    stalled.destroy()
  },
  60_000,
)
