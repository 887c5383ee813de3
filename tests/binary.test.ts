import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { version } from '../package.json'
import { archiveName } from '../src/db/embedded/cluster-archive.macro.ts'
import { bind } from '../src/http/bind.ts'
import { runCommand } from './support/command.ts'
import { executablePath, sources, untilReady } from './support/executable.ts'
import { type Client, client } from './support/harness.ts'
import { outcomeOf } from './support/outcome.ts'
import { addEmptyEmbeddedDatabase, privateDatabase } from './support/template.ts'

const root = join(import.meta.dir, '..')
const base = mkdtempSync(join(tmpdir(), 'todo-api-binary-'))
/** An unprivileged user that owns nothing but the folder that the program is started in. */
const stranger = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}
const running = new Set<Bun.Subprocess>()

beforeAll(async () => {
  chmodSync(base, 0o755)
  copyFileSync(await executablePath(), join(base, 'todo-api'))
  chmodSync(join(base, 'todo-api'), 0o755)
}, 120_000)

afterAll(async () => {
  for (const child of running) child.kill('SIGKILL')
  await Promise.all([...running].map(child => child.exited))
  rmSync(base, { recursive: true, force: true })
}, 30_000)

/** A folder with nothing in it but the executable. */
function emptyFolder(): string {
  const folder = mkdtempSync(join(base, 'run-'))
  // A second name of one copy: 134 MB each would fill the disk.
  linkSync(join(base, 'todo-api'), join(folder, 'todo-api'))
  if (stranger.uid !== undefined) chownSync(folder, stranger.uid, stranger.gid)
  return folder
}

/** `env -i PATH=… ./todo-api …` */
function spawn(folder: string, args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn(['./todo-api', ...args], {
    cwd: folder,
    env: { PATH: '/usr/bin:/bin', ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    ...stranger,
  })
  running.add(child)
  void child.exited.then(() => running.delete(child))
  return child
}

const run = (folder: string, args: string[], env: Record<string, string> = {}) =>
  outcomeOf(spawn(folder, args, env))

interface Running extends Client {
  child: Bun.Subprocess
  port: string
  /** Sends the signal and returns the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>
  log(): string
}

/** Starts it and waits until it is ready. */
async function serve(folder: string, env: Record<string, string> = {}): Promise<Running> {
  const child = spawn(folder, [], { PORT: '0', ...env })
  let text = ''
  const listening = Promise.withResolvers<string>()
  void (async () => {
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk)
      const url = text.match(/"url":"([^"]+)\/"/)?.[1]
      if (url) listening.resolve(url)
    }
    listening.reject(new Error(`it ended: ${text}${await new Response(child.stderr).text()}`))
  })()
  const url = await listening.promise
  const api = client(url)
  await untilReady(api)
  return {
    ...api,
    child,
    port: new URL(url).port,
    log: () => text,
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      await child.exited
      return child.exitCode
    },
  }
}

const databases = [
  ['postgres', 'SIGTERM'],
  ['embedded', 'SIGINT'],
] as const

for (const [kind, signal] of databases) {
  describe(`alone in an empty folder (${kind})`, () => {
    let env: Record<string, string> = {}
    let drop = async () => {}
    beforeAll(async () => {
      if (kind === 'embedded') return
      const database = await privateDatabase()
      env = { DATABASE_URL: database.url }
      drop = database.drop
    }, 30_000)
    afterAll(() => drop())

    test('it serves a user from the first call to the last', async () => {
      const folder = emptyFolder()
      const api = await serve(folder, env)

      const ada = await api.user()
      const task = await api.task(ada, { title: 'Buy milk' })
      const done = await api.patch(`/tasks/${task.id}`, { token: ada.token, json: { status: 'completed' } })
      const list = await api.get('/tasks?status=completed', { token: ada.token })
      const pages = await Promise.all(
        ['/docs', '/openapi.json', '/health', '/api/v1/users/me'].map(path =>
          api.get(api.url + path, { token: ada.token }),
        ),
      )

      expect(list.body).toEqual([done.body])
      expect(pages.map(({ status }) => status)).toEqual([200, 200, 200, 200])
      expect(pages[1]!.body.info.version).toBe(version)
      expect(await api.stop()).toBe(0)
      expect(readdirSync(folder).sort()).toEqual(['data', 'todo-api'])
      expect(api.log()).not.toContain('"level":"error"')
    }, 60_000)

    test(`${signal} lets what is in flight be answered, and exits 0`, async () => {
      const api = await serve(emptyFolder(), env)
      const { email, password } = await api.user()
      // A hash at cost 12 takes a fifth of a second.
      const login = api.post('/auth/login', { form: { username: email, password } })
      await Bun.sleep(50)

      const exitCode = api.stop(signal)
      const answer = await login

      expect([answer.status, await exitCode]).toEqual([200, 0])
      await expect(api.get('/health')).rejects.toThrow()
      expect(api.log()).toContain(`"reason":"${signal}"`)
      expect(api.log()).toContain('"msg":"stopped"')
    }, 60_000)

    test('kill -9 loses nothing that was answered', async () => {
      const folder = emptyFolder()
      const first = await serve(folder, env)
      const ada = await first.user()
      const tasks = await Promise.all(
        Array.from({ length: 20 }, (_, i) => first.task(ada, { title: `${i}` })),
      )
      await first.stop('SIGKILL')

      const second = await serve(folder, env)
      const list = await second.get('/tasks?limit=200', { token: ada.token })

      // The token is good, too: the secret was kept.
      expect(list.status).toBe(200)
      expect(new Set(list.body.map(({ id }: { id: string }) => id))).toEqual(
        new Set(tasks.map(({ id }) => id)),
      )
      expect(await second.stop()).toBe(0)
    }, 60_000)

    test('a second copy on the same port is refused in one line', async () => {
      const first = await serve(emptyFolder(), env)

      const second = await run(emptyFolder(), ['serve'], { ...env, PORT: first.port })

      expect(second.exitCode).toBe(1)
      expect(second.stderr).toBe(
        `127.0.0.1:${first.port} is in use by another process: stop it, or set PORT to a free port\n`,
      )
      expect((await first.get('/health')).status).toBe(200)
      expect(await first.stop()).toBe(0)
    }, 60_000)
  })
}

test('the build checks what is sent as the sources do', async () => {
  // Elysia looks at names of classes: a build that takes them away leaves queries unchecked.
  const database = await privateDatabase()
  const api = await serve(emptyFolder(), { DATABASE_URL: database.url })
  const { token } = await api.user()
  const wrong = [
    'limit=0',
    'limit=201',
    'limit=-5',
    'limit=x',
    'offset=-1',
    'status=bogus',
    'status=%00',
    'status=x&status=y',
    'priority=9',
    'overdue=maybe',
    'due_before=2026-02-30',
  ]
  for (const query of wrong) {
    const answer = await api.get(`/tasks?${query}`, { token })
    expect([query, answer.status]).toEqual([query, 422])
    expect(answer.body.detail[0].loc.slice(0, 2)).toEqual(['query', query.split('=')[0]!])
  }
  const body = await api.post('/tasks', { token, json: { title: '', status: 1, password: 'x' } })
  const malformed = await api.post('/tasks', {
    token,
    raw: '{',
    headers: { 'content-type': 'application/json' },
  })
  const unknown = await api.get('/nope')
  const wrongMethod = await api.post('/users/me', { token })

  expect(body.status).toBe(422)
  expect(body.body.detail.map((problem: { loc: string[] }) => problem.loc[1])).toEqual(['title', 'status'])
  expect(body.body.body).toEqual({ title: '', status: 1, password: '********' })
  expect([malformed.status, unknown.status, wrongMethod.status]).toEqual([422, 404, 405])
  expect(await api.stop('SIGINT')).toBe(0)
  await database.drop()
}, 60_000)

describe('the data folder', () => {
  test('is for its owner alone, and so is the secret in it', async () => {
    const folder = emptyFolder()
    const api = await serve(folder)
    const mode = (path: string) => (statSync(join(folder, path)).mode & 0o777).toString(8)

    const files = ['secret_key', 'lock', 'control'].map(name => mode(`data/${name}`))
    expect([mode('data'), ...files]).toEqual(['700', '600', '600', '600'])
    expect(readFileSync(join(folder, 'data/secret_key'), 'utf8')).toMatch(/^[0-9a-f]{64}$/)
    expect(api.log()).not.toContain(readFileSync(join(folder, 'data/secret_key'), 'utf8'))
    await api.stop()
  }, 60_000)

  test('belongs to one process: a second one is refused in one line, and the first goes on', async () => {
    const folder = emptyFolder()
    const api = await serve(folder)
    const ada = await api.user()

    const others = ['serve', 'migrate'].map(command => run(folder, [command], { PORT: '0' }))
    for (const other of await Promise.all(others)) {
      expect(other.exitCode).toBe(1)
      expect(other.stderr).toMatch(
        /^DATA_DIR \/.*\/data is in use by another todo-api process; stop that one, or set DATA_DIR .*\n$/,
      )
    }

    expect((await api.post('/tasks', { token: ada.token, json: { title: 'x' } })).status).toBe(201)
    await api.stop()
  }, 60_000)

  test('that cannot be made is reported in one line', async () => {
    const folder = emptyFolder()
    writeFileSync(join(folder, 'file'), '')
    const { exitCode, stderr } = await run(folder, ['serve'], { PORT: '0', DATA_DIR: 'file/data' })

    expect([exitCode, stderr.trim().split('\n').length]).toEqual([1, 1])
    expect(stderr).toContain('DATA_DIR')
  }, 30_000)

  test('that has no room for a database is reported in one line, and nothing is left there', async () => {
    const folder = emptyFolder()
    const command = 'ulimit -f 1000; exec ./todo-api migrate'
    const limited = Bun.spawn(['bash', '-c', command], {
      cwd: folder,
      env: {},
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const { exitCode, stderr } = await outcomeOf(limited)

    expect([exitCode, stderr]).toEqual([
      1,
      expect.stringMatching(/^no database can be made in \S+ \(.+\): it needs 30 MB and 500 files.*\n$/),
    ])
    expect(readdirSync(join(folder, 'data'))).not.toContain('cluster.new')
  }, 30_000)

  // As that of a volume in a container: its mode cannot be changed.
  test.skipIf(stranger.uid === undefined)(
    'may be of another user who lets us in',
    async () => {
      const folder = emptyFolder()
      const volume = mkdtempSync(join(base, 'volume-'))
      chmodSync(volume, 0o777)
      expect(await run(folder, ['migrate'], { DATA_DIR: volume })).toMatchObject({ exitCode: 0 })

      const closed = mkdtempSync(join(base, 'closed-'))
      expect((await run(folder, ['migrate'], { DATA_DIR: closed })).stderr).toBe(
        `DATA_DIR ${closed} cannot be used: permission denied\n`,
      )
      expect((await run(folder, ['backup', join(closed, 'x')], { DATA_DIR: volume })).stderr).toBe(
        `x was not written: permission denied in ${closed}\n`,
      )
    },
    60_000,
  )

  test.skipIf(stranger.uid === undefined)(
    'of a service of another user: root reads how to run what opens a copy, and leaves none behind',
    async () => {
      const folder = emptyFolder()
      const service = await serve(folder)
      const dataDir = join(folder, 'data')
      const before = readdirSync(dataDir).sort()
      for (const args of [
        ['backup', '--verify', join(base, 'verified')],
        ['export', join(base, 'exported')],
      ]) {
        const { exitCode, stderr } = await runCommand(args, { env: { DATA_DIR: dataDir } })
        expect([exitCode, stderr]).toEqual([
          1,
          expect.stringMatching(
            /belongs to user 65534, and this is root; .*: setpriv --reuid 65534 --regid 65534 [^\n]*\n$/,
          ),
        ])
      }
      expect(readdirSync(dataDir).sort()).toEqual(before)
      const unopened = ['backup', join(base, 'unopened')]
      expect(await runCommand(unopened, { env: { DATA_DIR: dataDir } })).toMatchObject({ exitCode: 0 })
      expect(await service.stop()).toBe(0)
    },
    60_000,
  )
})

describe.each([
  ['one process', { WORKERS: '1' }],
  // No database is needed to find out.
  ['several', { WORKERS: '2', DATABASE_URL: 'postgres://x@127.0.0.1:1/x' }],
])('an address that cannot be listened on is reported in a sentence (%s)', (_, processes) => {
  const start = (env: Record<string, string>) =>
    run(emptyFolder(), ['serve'], { ...processes, PORT: '0', ...env })
  const refused = (stderr: string) => ({ exitCode: 1, stdout: '', stderr: `${stderr}\n` })

  test('in use', async () => {
    const other = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() })
    const { port } = other
    const outcome = await start({ PORT: String(port) })
    await other.stop(true)

    expect(outcome).toEqual(
      refused(`127.0.0.1:${port} is in use by another process: stop it, or set PORT to a free port`),
    )
  })

  test('of another machine', async () => {
    expect(await start({ HOST: '192.0.2.1', PORT: '8000' })).toEqual(
      refused(
        'cannot listen on 192.0.2.1 (EADDRNOTAVAIL): set HOST to an address of this machine, or to 0.0.0.0 for all of them',
      ),
    )
  })

  test.each(['http://0.0.0.0', '256.256.256.256', '2001:db8::1'])('that is none: %s', async HOST => {
    const { exitCode, stderr } = await start({ HOST, PORT: '8000' })
    expect([exitCode, stderr.replace(/\(E\w+\)/, '(…)')]).toEqual([
      1,
      `cannot listen on ${HOST} (…): set HOST to an address of this machine, or to 0.0.0.0 for all of them\n`,
    ])
  })

  test('in use, of the metrics', async () => {
    const other = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() })
    const { port } = other
    const outcome = await start({ METRICS_PORT: String(port) })
    await other.stop(true)

    expect(outcome.exitCode).toBe(1)
    expect(outcome.stderr).toBe(
      `127.0.0.1:${port} is in use by another process: stop it, or set METRICS_PORT to a free port\n`,
    )
  })
})

test('a port that needs a privilege, and a name that does not resolve, are reported in a sentence', () => {
  const refuse = (code: string) => () => {
    throw Object.assign(new Error('listen'), { code })
  }
  expect(() => bind({ host: '::1', port: 80 }, refuse('EACCES'))).toThrow(
    '[::1]:80 needs a privilege: set PORT to 1024 or more, or grant CAP_NET_BIND_SERVICE',
  )
  const names = { host: 'METRICS_HOST', port: 'METRICS_PORT' }
  expect(() => bind({ host: '::1', port: 80 }, refuse('EACCES'), names)).toThrow('set METRICS_PORT to 1024')
  // How Bun and the system say that a name does not resolve, among others.
  for (const code of ['ENOENT', 'ENOTFOUND', 'EINVAL', 'ETIMEDOUT']) {
    expect(() => bind({ host: 'db', port: 80 }, refuse(code), names)).toThrow(
      `cannot listen on db (${code}): set METRICS_HOST to an address of this machine, or to 0.0.0.0 for all of them`,
    )
  }
  expect(() => bind({ host: '::1', port: 80 }, refuse(''))).toThrow('listen')
})

test('a container engine can build it of what .dockerignore lets through', async () => {
  const context = mkdtempSync(join(base, 'context-'))
  expect(readFileSync(join(root, '.dockerignore'), 'utf8').match(/^[^#!].*$/gm)).toEqual(['*'])
  for (const path of sources()) cpSync(join(root, path), join(context, path))
  symlinkSync(join(root, 'node_modules'), join(context, 'node_modules'))
  // Of other sources: it makes room.
  await Bun.write(join(context, 'build/cluster-0123456789ab.tar.gz'), '')

  const build = Bun.spawn([process.execPath, 'scripts/build.ts'], { cwd: context, stderr: 'pipe' })

  expect([await build.exited, await build.stderr.text()]).toEqual([0, ''])
  expect(readdirSync(join(context, 'build')).sort()).toEqual([archiveName(), 'licenses.txt'])
}, 120_000)

describe('the folder that it is started in', () => {
  test('has no influence, whatever lies there', async () => {
    const folder = emptyFolder()
    const trap = `require('node:fs').writeFileSync('${join(folder, 'trapped')}', ''); process.exit(99)`
    mkdirSync(join(folder, 'node_modules/elysia'), { recursive: true })
    mkdirSync(join(folder, 'drizzle/meta'), { recursive: true })
    mkdirSync(join(folder, 'src'))
    const traps: Record<string, string> = {
      'bunfig.toml':
        'preload = ["./trap.js"]\nlogLevel = "debug"\n[serve]\nport = 1\n[define]\n"process.env.PORT" = "1"\n',
      'trap.js': trap,
      'node_modules/elysia/index.js': trap,
      'node_modules/elysia/package.json': '{"name":"elysia","main":"index.js"}',
      'src/main.ts': trap,
      'index.ts': trap,
      'package.json': '{"name":"trap","version":"9.9.9","main":"trap.js","imports":{"#*":"./trap.js"}}',
      'tsconfig.json': '{"compilerOptions":{"paths":{"*":["./trap.js"]}}}',
      'drizzle/0000_init.sql': 'drop table users; nonsense',
      'drizzle/meta/_journal.json': 'nonsense',
      '.env.local': 'PORT=nonsense\nSECRET_KEY=short',
      '.env.production': 'PORT=nonsense',
      '.env.development': 'PORT=nonsense',
      [archiveName()]: 'nonsense',
    }
    for (const [name, content] of Object.entries(traps)) writeFileSync(join(folder, name), content)

    const option = await run(folder, ['version'])
    const api = await serve(folder)
    const ada = await api.user()
    const task = await api.task(ada)

    expect([option.exitCode, option.stdout]).toEqual([0, `${version}\n`])
    expect(task.title).toBe('Buy milk')
    expect(await api.stop()).toBe(0)
    expect(existsSync(join(folder, 'trapped'))).toBe(false)
  }, 60_000)

  test('may hold an .env, which is read, and the environment wins over it', async () => {
    const folder = emptyFolder()
    writeFileSync(join(folder, '.env'), 'DATA_DIR=elsewhere\nLOG_LEVEL=nonsense\n')

    const wrong = await run(folder, ['serve'], { PORT: '0' })
    const api = await serve(folder, { LOG_LEVEL: 'info' })

    expect([wrong.exitCode, wrong.stderr.includes('LOG_LEVEL')]).toEqual([2, true])
    expect(readdirSync(folder).sort()).toEqual(['.env', 'elsewhere', 'todo-api'])
    expect(await api.stop()).toBe(0)
  }, 60_000)
})

describe('the commands', () => {
  test('version and help answer on stdout and leave nothing behind', async () => {
    const folder = emptyFolder()
    for (const args of [['help'], ['--help'], ['-h'], ['help', 'migrate'], ['migrate', '--help']]) {
      const { exitCode, stdout, stderr } = await run(folder, args)
      expect([args, exitCode, stderr]).toEqual([args, 0, ''])
      expect(stdout).toContain('Usage: todo-api')
    }
    const help = (await run(folder, ['help'])).stdout
    for (const command of ['serve', 'migrate', 'healthcheck', 'openapi', 'version', 'help'])
      expect(help).toContain(command)
    for (const args of [['version'], ['--version'], ['-v'], ['-V']])
      expect(await run(folder, args)).toEqual({ exitCode: 0, stdout: `${version}\n`, stderr: '' })
    const serve = (await run(folder, ['help', 'serve'])).stdout
    for (const setting of ['PORT', 'DATA_DIR', 'DATABASE_URL', 'SECRET_KEY', 'FRONTEND_URL'])
      expect(serve).toMatch(new RegExp(`^  .*\\b${setting}\\b`, 'm'))
    expect(serve).toContain('Examples:\n  todo-api\n')
    expect(readdirSync(folder)).toEqual(['todo-api'])
  }, 30_000)

  test.each([
    [['nonsense']],
    [['serve', 'nonsense']],
    [['--nonsense']],
    [['migrate', '--nonsense']],
    [['serve', '--port', '1']],
    [['help', 'nonsense']],
  ])('%p is wrong use: exit 2, reported on stderr', async args => {
    const folder = emptyFolder()
    const { exitCode, stdout, stderr } = await run(folder, args, { PORT: '0' })

    expect([exitCode, stdout]).toEqual([2, ''])
    expect(stderr).not.toBe('')
    expect(readdirSync(folder)).toEqual(['todo-api'])
  })

  test('openapi prints the document that is served, without a database or a setting', async () => {
    const folder = emptyFolder()
    const { exitCode, stdout } = await run(folder, ['openapi'], {
      DATABASE_URL: 'postgres://unknown.invalid/x',
      PORT: 'nonsense',
    })
    const api = await serve(folder)
    const served = await api.get(`${api.url}/openapi.json`)

    expect(exitCode).toBe(0)
    expect(JSON.parse(stdout)).toEqual(served.body)
    await api.stop()
  }, 30_000)

  test('healthcheck asks the service on this machine', async () => {
    const folder = emptyFolder()
    const api = await serve(folder)
    const check = (env = {}) => run(folder, ['healthcheck'], { PORT: api.port, ...env })

    const up = await check()
    // Docker sets the proxy of its client in every container.
    const besideProxy = await check({ HTTP_PROXY: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1' })
    await api.stop()
    const down = await check()

    expect([up.exitCode, besideProxy.exitCode, down.exitCode]).toEqual([0, 0, 1])
    expect(down.stderr.trim().split('\n')).toHaveLength(1)
    expect(up.stdout + down.stdout).toBe('')
  }, 60_000)

  const addresses = Object.values(networkInterfaces()).flatMap(of => of?.map(({ address }) => address) ?? [])
  /** One that is no link's alone. A machine may have such an address and no `::1`. */
  const ipv6 = addresses.find(address => address.includes(':') && !address.startsWith('fe80'))
  const hosts = [
    '127.0.0.1',
    '0.0.0.0',
    'localhost',
    ...(ipv6 ? [ipv6, `[${ipv6}]`] : []),
    ...(addresses.includes('::1') ? ['::', '[::]', '0::0'] : []),
  ]

  test.each(hosts)(
    'healthcheck finds the service with HOST=%s, and the URL in the log is good',
    async HOST => {
      const folder = emptyFolder()
      const api = await serve(folder, { HOST })

      expect((await run(folder, ['healthcheck'], { HOST, PORT: api.port })).exitCode).toBe(0)
      expect((await fetch(`${api.url}/health`)).status).toBe(200)
      await api.stop()
    },
    60_000,
  )

  test('a new database has all migrations from the start, and --status makes none', async () => {
    const folder = emptyFolder()

    const before = await run(folder, ['migrate', '--status'])
    expect(readdirSync(folder)).toEqual(['todo-api'])
    const made = await run(folder, ['migrate'])

    expect(before.exitCode).toBe(1)
    expect(before.stderr).toMatch(/^pending 0000_init\n(pending \d{4}_\w+\n)*\d+ pending\n$/)
    expect(made).toEqual({ exitCode: 0, stdout: '', stderr: 'up to date\n' })
    const api = await serve(emptyFolder())
    expect(await api.stop()).toBe(0)
    expect(api.log()).toContain('"stopped"')
    expect(api.log()).not.toContain('"migrated"')
  }, 60_000)

  test('migrate brings the database of the folder up to date, and serve finds it so', async () => {
    const folder = emptyFolder()
    const data = join(folder, 'data')
    mkdirSync(data, { mode: 0o700 })
    await addEmptyEmbeddedDatabase(data)
    if (stranger.uid !== undefined) Bun.spawnSync(['chown', '-R', `${stranger.uid}:${stranger.gid}`, data])

    const before = await run(folder, ['migrate', '--status'])
    const migrated = await run(folder, ['migrate'])
    const after = await run(folder, ['migrate', '--status'])

    expect([before.exitCode, migrated.exitCode, after.exitCode]).toEqual([1, 0, 0])
    expect(before.stderr).toMatch(/^pending 0000_init\n(pending \d{4}_\w+\n)*\d+ pending\n$/)
    expect(migrated.stderr).toContain('applied 0000_init')
    expect(after.stderr).toBe('up to date\n')
    const api = await serve(folder)
    expect(await run(folder, ['migrate', '--status'])).toMatchObject({ exitCode: 0, stderr: 'up to date\n' })
    await api.stop()
  }, 60_000)

  test('a database that is not there is reported in one line by migrate', async () => {
    const { exitCode, stderr } = await run(emptyFolder(), ['migrate'], {
      DATABASE_URL: 'postgres://geheim:geheim@127.0.0.1:1/x',
    })

    expect([exitCode, stderr.trim().split('\n').length]).toEqual([1, 1])
    expect(stderr).not.toContain('geheim')
  }, 30_000)
})
