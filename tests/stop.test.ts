import { describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Env } from '../src/config/config.ts'
import { stopLimits } from '../src/server/start.ts'
import { runCommand } from './support/command.ts'
import { executablePath, type Running, startExecutable } from './support/executable.ts'
import { client, type DatabaseKind, testSettings, type User } from './support/harness.ts'
import { freePort, isListening } from './support/ports.ts'
import { stopwatch } from './support/stopwatch.ts'
import { emptyDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'
import { halfSent } from './support/wire.ts'

const signal = (api: Running) => api.process.kill('SIGTERM')

/** Runs a test against the executable, which may be started again on the same data. */
async function withData(kind: DatabaseKind, run: (start: (env?: Env) => Promise<Running>) => Promise<void>) {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-stop-'))
  const database = kind === 'postgres' ? await privateDatabase() : undefined
  const started: Running[] = []
  try {
    await run(async env => {
      const api = await startExecutable({
        ...testSettings,
        DATA_DIR: folder,
        DATABASE_URL: database?.url,
        ...env,
      })
      started.push(api)
      await until(async () => (await api.get('/health/ready')).status === 200)
      return api
    })
  } finally {
    for (const api of started) {
      api.process.kill('SIGKILL')
      await api.stop()
    }
    await database?.drop()
    rmSync(folder, { recursive: true, force: true })
  }
}

describe.each(['postgres', 'embedded'] as const)('a stop (%s)', kind => {
  test('under load loses nothing that was answered, and answers everything that was begun', async () => {
    await withData(kind, async start => {
      const api = await start({ SHUTDOWN_DELAY_SECONDS: '1' })
      const ada = await api.user()
      const made = new Set<string>()
      const answered = new Set<string>()
      const failed: string[] = []
      let stopped = false
      const load = Array.from({ length: 10 }, async () => {
        while (!stopped) {
          const id = crypto.randomUUID()
          try {
            const { status, body } = await api.post('/tasks', {
              token: ada.token,
              json: { title: 'Buy milk' },
              headers: { 'x-request-id': id },
            })
            expect(status).toBe(201)
            made.add(body.id)
            answered.add(id)
          } catch {
            failed.push(id)
            await Bun.sleep(20)
          }
        }
      })

      await until(() => made.size > 50)
      signal(api)
      const begin = performance.now()
      const code = await api.process.exited
      const seconds = (performance.now() - begin) / 1000
      stopped = true
      await Promise.all(load)
      await Bun.sleep(50)

      expect(code).toBe(0)
      expect(seconds).toBeGreaterThan(1)
      // A call that failed was never begun: there is no access line for it.
      const inLog = new Set(linesOf(api, 'request').map(line => line.request_id))
      expect(failed.filter(id => inLog.has(id))).toEqual([])
      expect([...answered].filter(id => !inLog.has(id))).toEqual([])
      const again = await start()
      expect(await allTasks(again, ada)).toEqual(made)
    })
  }, 60_000)

  test('is seen by the readiness probe at once, while every client is still answered', async () => {
    await withData(kind, async start => {
      const api = await start({ SHUTDOWN_DELAY_SECONDS: '4' })
      const ada = await api.user()
      const before = await api.get('/health/ready')

      signal(api)
      await until(async () => (await api.get('/health/ready')).status !== 200, 3)
      const probe = await api.get('/health/ready')
      const live = await api.get('/health/live')
      const task = await api.post('/tasks', { token: ada.token, json: { title: 'Buy milk' } })
      const preflight = await api.request('OPTIONS', `${api.url}/api/v1/tasks`)

      expect([before.status, before.body]).toEqual([200, { status: 'ready' }])
      expect([probe.status, probe.body.detail]).toEqual([503, 'the service is stopping'])
      expect([live.status, task.status, preflight.status]).toEqual([200, 201, 204])
      for (const { headers } of [probe, live, task, preflight])
        expect(headers.get('connection')).toBe('close')
      expect(await api.process.exited).toBe(0)
    })
  }, 60_000)
})

test.each(['SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)('%s ends it without a stop', async signal => {
  const api = await startExecutable()
  api.process.kill(signal)
  await api.stop()

  expect([api.process.signalCode, linesOf(api, 'stopping')]).toEqual([signal, []])
})

describe.each(['1', '2'])('with WORKERS=%s', WORKERS => {
  test.each([
    ['SIGTERM', ['SIGTERM']],
    ['SIGINT', ['SIGINT']],
    ['SIGHUP', ['SIGHUP']],
    ['a second SIGHUP, which a closing terminal may send,', ['SIGHUP', 'SIGHUP']],
    ['SIGHUP after SIGTERM, as systemd may send it,', ['SIGTERM', 'SIGHUP']],
  ] satisfies [string, NodeJS.Signals[]][])(
    '%s lets a request that is under way be answered, and no other in',
    async (_, signals) => {
      await withData('postgres', async start => {
        const api = await start({ WORKERS })
        const slow = await halfSent(api.url, (await api.user()).token)

        for (const signal of signals) {
          api.process.kill(signal)
          await Bun.sleep(200)
        }
        const refused = await fetch(`${api.url}/health`).catch(error => error.code)
        const answer = await slow.finish()

        expect(refused).toMatch(/refused/i)
        expect(answer).toStartWith('HTTP/1.1 201')
        expect(await api.process.exited).toBe(0)
        expect(linesOf(api, 'stopping')).toContainEqual(expect.objectContaining({ reason: signals[0] }))
      })
    },
    60_000,
  )

  test.each(['SIGTERM', 'SIGINT'] as const)(
    'a second %s ends it at once',
    async second => {
      await withData('postgres', async start => {
        const api = await start({ WORKERS })
        const slow = await halfSent(api.url, (await api.user()).token)

        signal(api)
        await Bun.sleep(300)
        api.process.kill(second)

        expect(await api.process.exited).toBe(1)
        // Ten seconds would have been left.
        expect(await slow.finish()).toBe('')
        expect(linesOf(api, 'stopped').length).toBeLessThan(Number(WORKERS))
      })
    },
    60_000,
  )

  test('a terminal that closes cuts no answer', async () => {
    await withSpawned(['serve'], WORKERS, async ({ child, url, token, closeTerminal }) => {
      const slow = await halfSent(url, token)

      closeTerminal()
      await Bun.sleep(300)

      expect(await slow.finish()).toStartWith('HTTP/1.1 201')
      expect(await child.exited).toBe(0)
    })
  }, 60_000)

  test('under nohup a terminal that closes stops nothing', async () => {
    const ignored = ['sh', '-c', `trap '' HUP; exec "$0" serve`]
    await withSpawned(ignored, WORKERS, async ({ child, url, closeTerminal }) => {
      closeTerminal()
      await Bun.sleep(500)

      expect((await fetch(`${url}/health`)).status).toBe(200)
      child.kill('SIGTERM')
      expect(await child.exited).toBe(0)
    })
  }, 60_000)
})

// Mostly they wait.
test.concurrent('a request that does not end is cut off, and the exit is clean all the same', async () => {
  await withData('embedded', async start => {
    const api = await start()
    await halfSent(api.url, (await api.user()).token)

    const begin = performance.now()
    const elapsed = stopwatch()
    signal(api)
    const code = await api.process.exited

    expect(code).toBe(0)
    expect(performance.now() - begin).toBeGreaterThan(9000)
    expect(elapsed()).toBeLessThan(15_000)
    expect(api.lines.at(-1)).toContain('"stopped"')
  })
}, 60_000)

test.concurrent('connections at rest do not delay it', async () => {
  await withData('postgres', async start => {
    const api = await start()
    const { hostname, port } = new URL(api.url)
    const resting = Array.from({ length: 20 }, () => connect(Number(port), hostname))
    for (const socket of resting)
      socket.on('error', () => {}).write('GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
    await Promise.all(resting.map(socket => new Promise(resolve => socket.once('data', resolve))))

    const elapsed = stopwatch()
    signal(api)

    expect(await api.process.exited).toBe(0)
    // What it would wait for a request.
    expect(elapsed()).toBeLessThan(stopLimits.inFlight * 1000)
  })
}, 60_000)

test.concurrent('background work that does not end delays it by a second', async () => {
  await withData('embedded', async start => {
    const api = await start({ BACKUP_EVERY: '1s' })
    const { pid } = api.process
    // The process of a backup, stopped before its end.
    let backup = ''
    await until(() => {
      backup = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
      const isStopped = backup !== '' && Bun.spawnSync(['kill', '-STOP', backup]).success
      return isStopped && /^State:\tT/m.test(readFileSync(`/proc/${backup}/status`, 'utf8'))
    })

    const begin = performance.now()
    const elapsed = stopwatch(pid)
    signal(api)
    const code = await api.process.exited
    const [took, tookItself] = [performance.now() - begin, elapsed()]
    Bun.spawnSync(['kill', '-KILL', backup])

    expect(code).toBe(0)
    expect(took).toBeGreaterThan(950)
    expect(tookItself).toBeLessThan(2500)
  })
}, 60_000)

test('a stop fits into the time that the examples of deploy/ give it', () => {
  const read = (file: string) => readFileSync(join(import.meta.dir, '..', file), 'utf8')
  const seconds = (file: string, pattern: RegExp) => Number(read(file).match(pattern)?.[1])

  expect(stopLimits.inFlight + stopLimits.jobs).toBeLessThan(stopLimits.all)
  expect(read('docs/deploy.md')).toContain(`Requests in flight have ${stopLimits.inFlight} s.`)
  expect(read('docs/deploy.md')).toContain(`Exit code 0, at most ${stopLimits.all + 1} s after step 2.`)
  const delay = seconds('deploy/kubernetes.yaml', /SHUTDOWN_DELAY_SECONDS\s+value: "(\d+)"/)
  for (const [file, pattern, delaySeconds] of [
    ['compose.yaml', /stop_grace_period: (\d+)s/, 0],
    ['deploy/todo-api.service', /TimeoutStopSec=(\d+)/, 3],
    ['deploy/kubernetes.yaml', /terminationGracePeriodSeconds: (\d+)/, delay],
  ] as const) {
    expect(seconds(file, pattern)).toBeGreaterThan(delaySeconds + stopLimits.all + 1)
  }
})

test('systemd starts it again for as long as it fails, unless its settings are wrong', () => {
  const unit = readFileSync(join(import.meta.dir, '../deploy/todo-api.service'), 'utf8')
  const settings = unit.split(/^\[(?:Service|Install)\]$/m).map(section => section.split('\n'))

  // In another section systemd ignores it, and gives up after five starts in ten seconds.
  expect(settings[0]).toContain('StartLimitIntervalSec=0')
  expect(settings[1]).toContain('Restart=on-failure')
  expect(settings[1]).toContain('RestartPreventExitStatus=2')
})

test('a signal during the start, before the database is open, ends the service well', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-stop-'))
  const port = await freePort()
  const child = Bun.spawn([await executablePath()], {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: String(port) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const live = `http://127.0.0.1:${port}/health/live`
    await until(() =>
      fetch(live).then(
        ({ ok }) => ok,
        () => false,
      ),
    )
    child.kill('SIGTERM')

    expect(await child.exited).toBe(0)
    expect(await new Response(child.stdout).text()).not.toContain('"listening"')
  } finally {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
})

const linesOf = ({ lines }: Running, msg: string) =>
  lines.map(line => JSON.parse(line)).filter(line => line.msg === msg)

/** Runs a test against the executable at a terminal, with a user; `command` is run with its path as `$0`. */
async function withSpawned(
  command: string[],
  WORKERS: string,
  run: (api: {
    child: Bun.Subprocess
    url: string
    token: string
    closeTerminal: () => void
  }) => Promise<void>,
) {
  const database = await privateDatabase()
  const port = await freePort()
  const path = await executablePath()
  const child = Bun.spawn(command.length === 1 ? [path, ...command] : [...command, path], {
    env: {
      PATH: process.env.PATH,
      ...testSettings,
      PORT: String(port),
      DATABASE_URL: database.url,
      WORKERS,
    },
    terminal: {},
  })
  const api = client(`http://127.0.0.1:${port}`)
  try {
    await until(() =>
      api.get('/health/ready').then(
        ({ status }) => status === 200,
        () => false,
      ),
    )
    const { token } = await api.user()
    await run({ child, url: api.url, token, closeTerminal: () => child.terminal!.close() })
  } finally {
    child.kill('SIGKILL')
    await child.exited
    await until(async () => !(await isListening(port)))
    await database.drop()
  }
}

async function allTasks(api: Running, { token }: User): Promise<Set<string>> {
  const ids = new Set<string>()
  let next: string | undefined = '/tasks?limit=200'
  while (next) {
    const { body, headers } = await api.get(next, { token })
    for (const { id } of body) ids.add(id)
    const link: string | undefined = headers.get('link')?.match(/<([^>]+)>/)?.[1]
    next = link && new URL(link, api.url).href
  }
  return ids
}

test('a start that fails says why and ends at once, however long a stop would wait', async () => {
  const { url, drop } = await emptyDatabase()
  await drop()
  const elapsed = stopwatch()
  const env = { ...testSettings, DATABASE_URL: url, SHUTDOWN_DELAY_SECONDS: '50' }
  const { exitCode, stderr } = await runCommand(['serve'], { env })

  expect(stderr).toContain('does not exist')
  expect(exitCode).toBe(1)
  expect(elapsed()).toBeLessThan(25_000)
})
