import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectToService } from '../src/cli/control-socket.ts'
import { failureOf } from '../src/cli/failure.ts'
import { healthcheckCommand } from '../src/cli/healthcheck.ts'
import { runCommand as runProgram } from '../src/cli/program.ts'
import { UsageError } from '../src/cli/terminal.ts'
import { ConfigError, type Env } from '../src/config/config.ts'
import { DatabaseUrlError } from '../src/config/database-url.ts'
import { MigrationError, migrations } from '../src/db/migrator.ts'
import { AppError } from '../src/lib/errors.ts'
import { makeApiToken } from './support/api-token.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { allHelp } from './support/command-help.ts'
import { executablePath, type Running, startExecutable } from './support/executable.ts'
import { createMeeting } from './support/meet.ts'
import { outcomeOf } from './support/outcome.ts'
import { execute } from './support/postgres-server.ts'
import { emptyDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'todo-api-commands-'))
afterAll(() => rmSync(folder, { recursive: true }))

const lines = (text: string) => text.trim().split('\n')

/** The date that it will be then. */
const dayIn = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10)

describe.each(['postgres', 'embedded'] as const)('user commands beside a running service (%s)', kind => {
  let place: Place
  let api: Running
  beforeAll(async () => {
    place = await newPlace(kind)
    api = await startExecutable(place.env)
  }, 60_000)
  afterAll(async () => {
    expect(await api.stop()).toBe(0)
    await place.remove()
  })

  const user = (args: string[], stdin = '') => runCommand(['user', ...args], { ...place, stdin })
  const token = (args: string[], stdin = '') => runCommand(['token', ...args], { ...place, stdin })
  /** Runs a query while the service runs. */
  async function ask(text: string): Promise<unknown[][]> {
    if (kind === 'postgres') return (await execute(place.env.DATABASE_URL!, text)).map(Object.values)
    return (await connectToService(place.env.DATA_DIR!))!.query(text, [])
  }
  /** The service learns within a second what a command has ended. */
  const untilRefused = (caller: { token: string }) =>
    until(async () => (await api.get('/users/me', caller)).status === 401, 1)
  const login = (username: string, password: string) =>
    api.post('/auth/login', { form: { username, password } })

  test('create makes an account that can sign in, and prints its id', async () => {
    const made = await user(['create', 'Ada@example.com'], 'correct horse\n')

    expect(made).toMatchObject({ exitCode: 0, stderr: 'created user Ada@example.com\n' })
    const { body } = await login('ada@example.com', 'correct horse')
    expect((await api.get('/users/me', { token: body.access_token })).body).toMatchObject({
      id: made.stdout.trim(),
      email: 'Ada@example.com',
    })
    expect((await api.task({ token: body.access_token })).version).toBe(1)
  })

  test('create refuses a second account of an address, and what registration refuses', async () => {
    const taken = await user(['create', 'ADA@example.com'], 'correct horse')
    const noAddress = await user(['create', 'ada'], 'correct horse')
    const short = await user(['create', 'bob@example.com'], 'short')
    const long = await user(['create', 'bob@example.com'], 'ü'.repeat(37))

    expect([taken, noAddress, short, long].map(({ exitCode }) => exitCode)).toEqual([1, 2, 2, 2])
    expect(taken.stderr).toContain('another account')
    expect(short.stderr).toContain('at least 8 characters')
    expect(await user(['reset-password', 'missing\x1b[2J@example.com'], 'short')).toMatchObject({
      exitCode: 1,
      stderr: 'there is no user missing\ufffd[2J@example.com\n',
    })
    expect(long.stderr).toContain('at most 72 bytes')
    expect(await user(['list'])).toMatchObject({ stdout: expect.not.stringContaining('bob') })
  })

  test('list prints one line of JSON for each account, oldest first', async () => {
    const bob = await api.user('bob@example.com')
    await api.task(bob)
    await api.task(bob)
    const { stdout, exitCode } = await user(['list'])

    expect(exitCode).toBe(0)
    expect(lines(stdout).map(line => JSON.parse(line))).toMatchObject([
      { email: 'Ada@example.com', tasks: 1, sessions: 1 },
      { id: bob.id, email: 'bob@example.com', tasks: 2, sessions: 1, disabled_at: null },
    ])
  })

  test('disable ends the sessions within a second and refuses sign-ins; enable allows them again', async () => {
    const carol = await api.user('carol@example.com')
    const { token: accessToken } = carol
    const changedAt = async () =>
      String((await ask(`select updated_at::text from users where id = '${carol.id}'`))[0]![0])
    const times = [await changedAt()]
    const script = await makeApiToken(api, carol)
    expect((await api.get('/users/me', { token: accessToken })).status).toBe(200)
    expect((await api.get('/tasks', { token: script.token })).status).toBe(200)
    const disabled = await user(['disable', 'CAROL@example.com'])
    await untilRefused(carol)

    expect(disabled).toMatchObject({
      exitCode: 0,
      stderr: 'carol@example.com is disabled; 1 sessions and 1 API tokens ended\n',
    })
    expect((await api.get('/users/me', { token: accessToken })).status).toBe(401)
    expect((await login('carol@example.com', 'correct horse')).status).toBe(401)
    times.push(await changedAt())

    await untilRefused(script)
    expect(await token(['create', carol.id, '--name', 'x', '--scopes', 'tasks:read'])).toEqual({
      exitCode: 1,
      stdout: '',
      stderr: 'carol@example.com is disabled\n',
    })

    expect(await user(['enable', 'carol@example.com'])).toMatchObject({ exitCode: 0 })
    expect((await api.get('/tasks', { token: script.token })).status).toBe(401)
    expect((await api.get('/users/me', { token: accessToken })).status).toBe(401)
    expect((await login('carol@example.com', 'correct horse')).status).toBe(200)
    times.push(await changedAt())
    expect([...new Set(times)].toSorted()).toEqual(times)
  })

  test('disable and reset-password end no session and no API token of another user', async () => {
    const [heidi, ivan] = [await api.user(), await api.user()]
    const script = await makeApiToken(api, ivan)
    await user(['disable', heidi.id])
    await user(['reset-password', heidi.id], 'staple battery')
    await untilRefused(heidi)

    expect((await api.get('/users/me', ivan)).status).toBe(200)
    expect((await api.get('/tasks', { token: script.token })).status).toBe(200)
  })

  test('disable and reset-password do nothing when they cannot end everything', async () => {
    const kim = await api.user()
    await makeApiToken(api, kim)
    await ask(`create function keep() returns trigger language plpgsql as $$ begin raise 'kept'; end $$`)
    await ask(`create trigger keep before delete on api_tokens for each row
      when (old.user_id = '${kim.id}') execute function keep()`)

    expect((await user(['disable', kim.id])).stderr).toContain('kept')
    expect((await user(['reset-password', kim.id], 'staple battery')).stderr).toContain('kept')
    await Bun.sleep(1000)

    expect((await api.get('/users/me', kim)).status).toBe(200)
    expect((await login(kim.email, kim.password)).status).toBe(200)
    await ask('drop function keep cascade')
  })

  test('an account that is disabled again stays disabled since the first time, and when another is enabled', async () => {
    const judy = await api.user()
    const other = await api.user()
    const disabledAt = async () => {
      expect((await user(['disable', judy.id])).exitCode).toBe(0)
      const accounts = lines((await user(['list'])).stdout).map(line => JSON.parse(line))
      return accounts.find(({ id }) => id === judy.id).disabled_at
    }

    const since = await disabledAt()
    expect((await user(['enable', other.id])).exitCode).toBe(0)
    expect([since, await disabledAt()]).toEqual([expect.any(String), since])
  })

  test('reset-password changes the password and ends the sessions', async () => {
    const dave = await api.user('dave@example.com')
    const script = await makeApiToken(api, dave)
    const reset = await user(['reset-password', dave.id], 'staple battery\r\nignored\n')
    await untilRefused(dave)

    expect(reset).toMatchObject({
      exitCode: 0,
      stderr: 'dave@example.com has a new password; 1 sessions and 1 API tokens ended\n',
    })
    expect((await api.get('/users/me', dave)).status).toBe(401)
    expect((await api.get('/tasks', { token: script.token })).status).toBe(401)
    expect((await login(dave.email, 'correct horse')).status).toBe(401)
    expect((await login(dave.email, 'staple battery')).status).toBe(200)
  })

  test('token create prints a token that works, list shows it without the secret, revoke ends it', async () => {
    const frank = await api.user('frank@example.com')
    await makeApiToken(api, await api.user())
    const options = ['--name', 'a \x1b[1mscript', '--scopes', 'account:read, tasks:write', '--expires', '30d']
    const day = dayIn(30)
    const made = await token(['create', 'FRANK@example.com', ...options])
    expect(made).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(/^todo_pat_\w{38}\n$/),
      stderr: expect.stringMatching(
        new RegExp(
          `^created API token [0-9a-f-]{36} for frank@example.com; it expires (${day}|${dayIn(30)})\n$`,
        ),
      ),
    })
    const secret = made.stdout.trim()
    expect((await api.get('/users/me', { token: secret })).body.id).toBe(frank.id)
    expect((await api.task({ token: secret })).user_id).toBe(frank.id)

    const { stdout } = await token(['list', frank.id])
    const [shown] = (await api.get('/auth/tokens', frank)).body
    expect(lines(stdout).map(line => JSON.parse(line))).toEqual([{ ...shown, user: frank.email }])
    expect(lines((await token(['list'])).stdout).length).toBeGreaterThanOrEqual(2)
    expect(stdout).not.toContain(secret.slice(12))

    expect(await token(['revoke', shown.id])).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: `revoked API token ${shown.id} (a \u{fffd}[1mscript)\n`,
    })
    await untilRefused({ token: secret })
    expect(await token(['revoke', shown.id])).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('no such API token'),
    })
  })

  test('token revoke - ends the token that comes in on stdin', async () => {
    const grace = await api.user('grace@example.com')
    const options = ['--name', 'x', '--scopes', 'tasks:read', '--expires', 'never']
    const { stdout, stderr } = await token(['create', grace.id, ...options])
    expect(stderr).toEndWith('; it expires never\n')
    const day = dayIn(90)
    const usual = await token(['create', grace.id, '--name', 'y', '--scopes', 'tasks:read'])
    expect(usual.stderr).toMatch(new RegExp(`; it expires (${day}|${dayIn(90)})\n$`))
    await token(['revoke', '-'], usual.stdout)

    // As it was copied.
    expect(await token(['revoke', '-'], ` ${stdout.trim()} \n`)).toMatchObject({ exitCode: 0 })
    expect((await api.get('/auth/tokens', grace)).body).toEqual([])
    expect(await token(['revoke', '-'], stdout)).toMatchObject({ exitCode: 1 })
  })

  test('a password is the first line of stdin, also when that does not end', async () => {
    const { PATH } = process.env
    const command = Bun.spawn([await executablePath(), 'user', 'create', 'ines@example.com'], {
      env: { PATH, ...place.env },
      stdio: ['pipe', 'ignore', 'ignore'],
      timeout: 20_000,
    })
    command.stdin.write('correct horse\r\nand more\n')
    await command.stdin.flush()

    expect(await command.exited).toBe(0)
    expect((await login('ines@example.com', 'correct horse')).status).toBe(200)
  })

  test('token create refuses what the API refuses', async () => {
    const heidi = await api.user('heidi@example.com')
    const create = async (...options: string[]) => {
      const { exitCode, stderr, stdout } = await token(['create', heidi.email, ...options])
      expect(stdout).toBe('')
      return [exitCode, stderr.trim()]
    }
    const right = ['--name', 'x', '--scopes', 'tasks:read']

    expect(await create()).toEqual([2, expect.stringMatching(/name: Field required; scopes: Field required/)])
    expect(await create('--name', 'x', '--scopes', 'admin')).toEqual([2, expect.stringContaining('one of')])
    expect(await create(...right, '--expires', '400d')).toEqual([2, expect.stringContaining('one year')])
    expect(await create(...right, '--expires', 'soon')).toEqual([2, expect.stringContaining('date')])
    for (let i = 0; i < 50; i++) await makeApiToken(api, heidi)
    expect(await create(...right)).toEqual([1, expect.stringContaining('no more than 50')])
    expect((await api.get('/auth/tokens', heidi)).body).toHaveLength(50)
    expect(await token(['create', 'unknown@example.com', ...right])).toMatchObject({ exitCode: 1 })
  })

  test('delete asks, or needs --yes, and takes everything with it', async () => {
    const erin = await api.user('erin@example.com')
    await api.task(erin)
    const unsure = await user(['delete', 'erin@example.com'])
    expect([unsure.exitCode, unsure.stderr]).toEqual([2, expect.stringContaining('--yes')])
    expect((await api.get('/users/me', erin)).status).toBe(200)

    expect(await user(['delete', 'erin@example.com', '--yes'])).toMatchObject({ exitCode: 0 })
    for (const table of ['tasks', 'user_versions', 'sessions'])
      expect(await ask(`select user_id from ${table} where user_id = '${erin.id}'`)).toEqual([])
    await untilRefused(erin)
    expect((await login('erin@example.com', 'correct horse')).status).toBe(401)
    expect(await user(['delete', 'erin@example.com', '--yes'])).toMatchObject({
      exitCode: 1,
      stderr: 'there is no user erin@example.com\n',
    })
  })

  test('create at a terminal asks for the password twice, without an echo', async () => {
    // The questions are no result: they are on stderr.
    const result = join(folder, `created-${kind}`)
    const type = async (address: string, ...passwords: string[]) => {
      const command = [await executablePath(), 'user', 'create', address, '>', result].join(' ')
      const terminal = Bun.spawn(['script', '-qec', command, '/dev/null'], {
        env: { PATH: process.env.PATH, ...place.env },
        stdin: 'pipe',
        stdout: 'pipe',
      })
      let shown = ''
      for await (const chunk of terminal.stdout) {
        shown += Buffer.from(chunk).toString()
        if (shown.endsWith(': ')) terminal.stdin.write(passwords.shift() ?? '')
        await terminal.stdin.flush()
      }
      return { exitCode: await terminal.exited, shown }
    }

    // With a typing mistake, corrected with the backspace key; and ctrl-U, which begins again.
    const typed = await type('gina@example.com', 'staple batterx\x7fy\r', 'wrong\x15staple battery\r')
    expect(typed.exitCode).toBe(0)
    expect(typed.shown).toContain('created user gina@example.com')
    expect(typed.shown).not.toContain('staple')
    expect(readFileSync(result, 'utf8')).toMatch(/^[0-9a-f-]{36}\n$/)
    expect((await login('gina@example.com', 'staple battery')).status).toBe(200)

    expect(await type('hugo@example.com', 'staple battery\r', 'staple buttery\r')).toMatchObject({
      exitCode: 1,
      shown: expect.stringContaining('the two passwords differ'),
    })
    expect(await type('hugo@example.com', 'staple\x03')).toMatchObject({
      exitCode: 1,
      shown: expect.stringContaining('interrupted'),
    })
    expect((await login('hugo@example.com', 'staple battery')).status).toBe(401)
  })

  test('delete at a terminal accepts only the address as a yes', async () => {
    const fred = await api.user('fred@example.com')
    const { id } = fred
    await api.task(fred)
    await api.task(await api.user())
    // The question is no result: it is on stderr.
    const command = [await executablePath(), 'user', 'delete', id, '> /dev/null'].join(' ')
    const typing = async (answer: string) => {
      const env = { PATH: process.env.PATH, ...place.env }
      const terminal = Bun.spawn(['script', '-qec', command, '/dev/null'], {
        env,
        stdin: 'pipe',
        stdout: 'pipe',
      })
      let shown = ''
      let isAnswered = false
      for await (const chunk of terminal.stdout) {
        shown += Buffer.from(chunk).toString()
        if (isAnswered || !shown.includes('go on: ')) continue
        isAnswered = true
        terminal.stdin.write(answer)
        await terminal.stdin.flush()
      }
      return [await terminal.exited, shown]
    }

    expect(await typing('fred\r')).toEqual([
      1,
      expect.stringMatching(/deletes fred@example\.com and 1 tasks for good[\s\S]*nothing was deleted/),
    ])
    expect(await typing('\x04')).toEqual([1, expect.stringContaining('nothing was deleted')])
    expect((await login('fred@example.com', 'correct horse')).status).toBe(200)
    expect(await typing('FRED@example.com\r')).toEqual([0, expect.stringContaining('is deleted')])
    expect((await login('fred@example.com', 'correct horse')).status).toBe(401)
  })

  test('doctor finds nothing wrong', async () => {
    const { stdout, stderr, exitCode } = await runCommand(['doctor'], place)

    expect([exitCode, stderr]).toEqual([0, ''])
    const isEmbedded = kind === 'embedded'
    const about = [
      'settings     valid; `todo-api config` lists them',
      ...(isEmbedded ? [`data folder  ${place.env.DATA_DIR}, [\\d,]+ MiB free`] : []),
      ...(isEmbedded ? ['service      it runs on this data folder'] : []),
      `database     ${isEmbedded ? 'embedded ' : ''}PostgreSQL 1\\d\\.\\d+[^,]*, answered in \\d+ ms`,
      'encoding     UTF8',
      'time zone    UTC',
      ...(isEmbedded ? [] : ['connections  up to 10 of \\d+ connections a replica']),
      'clock        the database’s differs from this machine’s by [01]\\.\\d s',
      `migrations   all ${migrations.length} applied`,
      'writing      allowed on every table',
    ]
    expect(lines(stdout)).toEqual(about.map(line => expect.stringMatching(new RegExp(`^ok    ${line}$`))))
  })
})

test('user list counts the tasks that are not in the trash, and the sessions that are not over; token list shows live ones', async () => {
  const place = await newPlace('postgres', { direct: true })
  const day = dayIn(0)
  const { stdout: made } = await runCommand(['user', 'create', 'ada@example.com'], {
    env: { ...place.env, BCRYPT_COST: '5' },
    stdin: 'correct horse',
  })
  const id = made.trim()
  await execute(
    place.env.DATABASE_URL!,
    `insert into sessions (id, user_id, token_hash, expires_at, last_used_at)
     select gen_random_uuid(), '${id}', n, now() + n * interval '1 hour', '2026-01-05'::date + n
     from generate_series(-2, 1) n;
     insert into api_tokens (id, user_id, name, scopes, token_hash, prefix, expires_at, last_used_at)
     select ('00000000-0000-4000-8000-00000000000' || n)::uuid, '${id}', n, '{tasks:read,account:read}', n, 'todo_pat_' || n, at,
            case n when 2 then timestamptz '2026-01-07T12:00:00Z' end
     from (values (1, now() - interval '1 s'), (4, null), (2, now() + interval '1 hour'), (3, null)) t(n, at);
     insert into tasks (id, user_id, title, version, deleted_at)
     select gen_random_uuid(), '${id}', 'a', n, case when n > 1 then now() end from generate_series(1, 3) n`,
  )

  const { stdout } = await runCommand(['user', 'list'], place)

  const { stdout: tokens } = await runCommand(['token', 'list'], place)
  const [row] = await execute(place.env.DATABASE_URL!, 'select password_hash from users')
  const atTerminal = Bun.spawn(
    ['script', '-qec', '"$PROGRAM" user list; "$PROGRAM" token list', '/dev/null'],
    {
      env: { PATH: process.env.PATH, PROGRAM: await executablePath(), ...place.env },
      stdout: 'pipe',
    },
  )
  const tables = (await atTerminal.stdout.text()).split('\r\n').map(line => line.split(/ {2,}/))

  expect(JSON.parse(stdout)).toMatchObject({ id, tasks: 1, sessions: 1 })
  expect(JSON.parse(stdout).last_used_at).toStartWith('2026-01-07')
  expect(lines(tokens).map(line => JSON.parse(line).name)).toEqual(['2', '3', '4'])
  expect(row!.password_hash).toStartWith('$2b$05$')
  expect(tables.slice(0, 5)).toEqual([
    ['ID', 'E-MAIL', 'CREATED', 'TASKS', 'SESSIONS', 'LAST USED', 'DISABLED'],
    [
      id,
      'ada@example.com',
      expect.stringMatching(new RegExp(`^(${day}|${dayIn(0)})$`)),
      '1',
      '1',
      '2026-01-07 12:00',
    ],
    ['ID', 'USER', 'NAME', 'SCOPES', 'BEGINS WITH', 'LAST USED', 'EXPIRES'],
    [
      expect.stringMatching(/2$/),
      'ada@example.com',
      '2',
      'tasks:read,account:read',
      'todo_pat_2',
      '2026-01-07 12:00',
      expect.stringMatching(/^[\d-]{10}$/),
    ],
    [
      expect.stringMatching(/3$/),
      'ada@example.com',
      '3',
      'tasks:read,account:read',
      'todo_pat_3',
      'never',
      'never',
    ],
  ])
  await place.remove()
})

describe('without a database', () => {
  const dataDir = join(folder, 'nothing')

  test.each([['user list'], ['export']])('%s is refused in one line, and makes none', async words => {
    const { exitCode, stderr } = await runCommand(words.split(' '), { env: { DATA_DIR: dataDir } })

    expect([exitCode, lines(stderr)]).toEqual([
      1,
      [expect.stringMatching(/^there is no database in DATA_DIR/)],
    ])
    expect(existsSync(dataDir)).toBe(false)
  })

  test.each([
    'user reset-password ada@example.com',
    'user disable ada@example.com',
    'user enable ada@example.com',
    'user delete ada@example.com --yes',
    'token create ada@example.com --name x --scopes tasks:read',
    'token list',
    'token revoke 00000000-0000-4000-8000-000000000000',
    'reset-sync',
  ])('%s fails', async words => {
    process.env.DATA_DIR = dataDir
    const running = runProgram(words.split(' ')).finally(() => delete process.env.DATA_DIR)

    await expect(running).rejects.toThrow('there is no database in DATA_DIR')
    expect(existsSync(dataDir)).toBe(false)
  })
})

test('a service that was killed blocks no command', async () => {
  const place = await newPlace('embedded')
  const api = await startExecutable(place.env)
  await api.user('ada@example.com')
  api.process.kill('SIGKILL')
  await api.process.exited

  expect(existsSync(join(place.env.DATA_DIR!, 'control'))).toBe(true)
  expect((await runCommand(['user', 'list'], place)).stdout).toContain('ada@example.com')
  expect((await runCommand(['doctor'], place)).stdout).toContain('none runs on this data folder')
  await place.remove()
}, 60_000)

describe('config', () => {
  const config = async (env: Env, dotEnv = '') => {
    const cwd = mkdtempSync(join(folder, 'config-'))
    writeFileSync(join(cwd, '.env'), dotEnv)
    const { stdout, ...rest } = await runCommand(['config', '--json'], { env, cwd })
    const settings = stdout === '' ? [] : lines(stdout).map(line => JSON.parse(line))
    return { ...rest, stdout, of: (name: string) => settings.find(setting => setting.name === name) }
  }

  test('says what is in force and where it comes from', async () => {
    const { of, exitCode } = await config({ PORT: '9000', DATA_DIR: 'x\x1b[2J' }, 'PORT=1\nLOG_LEVEL=warn\n')

    expect(exitCode).toBe(0)
    expect(of('PORT')).toEqual({ name: 'PORT', value: '9000', from: 'environment' })
    expect(of('LOG_LEVEL')).toEqual({ name: 'LOG_LEVEL', value: 'warn', from: '.env' })
    expect(of('HOST')).toEqual({ name: 'HOST', value: '127.0.0.1', from: 'default' })
    expect(of('DATA_DIR').value).toBe('x\ufffd[2J')
    expect((await config({})).of('DATABASE_URL')).toMatchObject({
      value: '(embedded database in ./data)',
      from: 'default',
    })
    const table = lines((await runCommand(['config'], { env: { PORT: '9000' } })).stdout)
    expect(table[0]).toMatch(/^NAME +VALUE +FROM$/)
    expect(table).toContainEqual(expect.stringMatching(/^PORT +9000 +environment$/))
  })

  test('names what is nearly a setting, and so do doctor and serve', async () => {
    const cwd = mkdtempSync(join(folder, 'misspelled-'))
    writeFileSync(join(cwd, '.env'), 'DATABSE_URL=postgres://ada:geheim@db/todo\n')
    const config = await runCommand(['config'], { cwd })
    const doctor = await runCommand(['doctor'], { cwd })
    // It does not get far: the address is of another machine.
    const serve = await runCommand(['serve'], { cwd, env: { HOST: '192.0.2.1' } })

    expect(config.stderr).toBe('there is no setting DATABSE_URL; the nearest is DATABASE_URL\n')
    expect(lines(doctor.stdout)[1]).toBe(
      'warn  settings     there is no DATABSE_URL; if DATABASE_URL is meant, correct the name',
    )
    expect(JSON.parse(serve.stdout)).toMatchObject({
      level: 'warn',
      msg: 'no such setting',
      name: 'DATABSE_URL',
      nearest: 'DATABASE_URL',
    })
  })

  test('hides every secret', async () => {
    const file = join(folder, 'secret')
    writeFileSync(file, 'geheim-file-geheim-file-geheim-file-1\n')
    const urls = [
      'postgres://ada:geheim@db/todo',
      'postgres://ada:geh%40eim@db1:1,db2:2/todo?password=geheim&Password=geheim&sslpassword=geheim&application_name=b',
    ]
    for (const url of urls) {
      const { stdout, of } = await config({ DATABASE_URL: url, SECRET_KEY_FILE: file })

      expect(stdout).not.toMatch(/geheim|geh%40eim/)
      expect(of('DATABASE_URL').value).toMatch(/^postgres:\/\/ada:\(hidden\)@db/)
      expect(of('SECRET_KEY')).toEqual({
        name: 'SECRET_KEY',
        value: '(hidden)',
        from: `file ${file}, named in environment`,
      })
    }
  })

  test.each([
    ['https://ada:geheim@collector:4318/otlp', 'https://(hidden)@collector:4318/otlp'],
    ['https://geheim@collector:4318', 'https://(hidden)@collector:4318'],
    ['https://collector/otlp?key=geheim&geheim#geheim', 'https://collector/otlp?(hidden)'],
    ['http://collector:4318/@/otlp', 'http://collector:4318/@/otlp'],
  ])('shows the address of a collector without what opens it: %s', async (address, shown) => {
    const { of } = await config({ OTEL_EXPORTER_OTLP_ENDPOINT: address })
    expect(of('OTEL_EXPORTER_OTLP_ENDPOINT').value).toBe(shown)
  })

  test('reads them from source as the executable does, not as Bun would', async () => {
    const root = join(import.meta.dir, '..')
    const cwd = mkdtempSync(join(folder, 'source-'))
    copyFileSync(join(root, 'bunfig.toml'), join(cwd, 'bunfig.toml'))
    writeFileSync(join(cwd, '.env'), 'HOST=$PORT\n')
    writeFileSync(join(cwd, '.env.local'), 'PORT=9000\n')
    const program = [process.execPath, join(root, 'src/main.ts'), 'config', '--json']
    const child = Bun.spawn(program, { cwd, env: { PATH: process.env.PATH } })
    const shown = lines(await child.stdout.text()).map(line => JSON.parse(line))

    expect(shown.find(({ name }) => name === 'HOST')).toEqual({ name: 'HOST', value: '$PORT', from: '.env' })
    expect(shown.find(({ name }) => name === 'PORT').from).toBe('default')
  })

  test('leaves no setting out, and shows what is in force for each', async () => {
    const source = readFileSync(join(import.meta.dir, '../src/config/config.ts'), 'utf8')
    const names = [...source.matchAll(/(?:text|secret|integer|flag|oneOf)\('([A-Z_]+)'/g)].map(
      ([, name]) => name!,
    )
    const shown = [
      await config({}),
      await config({ DATABASE_URL: 'postgres://db/todo' }),
      await config({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }),
    ]
    const shownOf = (name: string) => shown.map(({ of }) => of(name)?.value).find(Boolean)

    expect(names.length).toBeGreaterThan(10)
    expect(names.filter(name => shownOf(name) === undefined)).toEqual([])
    // These are off when nothing is said; every other one has a value then.
    const off = /^(FIRST_USER_|METRICS_|OTEL_|TRUSTED_PROXIES$|BACKUP_EVERY$)/
    expect(names.filter(name => shownOf(name) === '(not set)' && !off.test(name))).toEqual([])
    expect((await config({ METRICS_PORT: '9100' })).of('METRICS_HOST').value).toBe('127.0.0.1')
  })

  test('with mistakes says where each setting comes from, names the mistakes and exits 2', async () => {
    const env = { PORT: 'geheim', SECRET_KEY_FILE: 'geheim', DATABASE_URL: 'postgres://ada:geheim@db/todo' }
    const { exitCode, stderr, stdout, of } = await config(env, 'LOG_LEVEL=loud\nBACKUP_KEEP=3\n')

    expect([of('PORT'), of('SECRET_KEY'), of('LOG_LEVEL')]).toEqual([
      { name: 'PORT', value: '(wrong)', from: 'environment' },
      { name: 'SECRET_KEY', value: '(wrong)', from: 'SECRET_KEY_FILE in environment' },
      { name: 'LOG_LEVEL', value: '(wrong)', from: '.env' },
    ])
    expect(of('BACKUP_KEEP')).toEqual({ name: 'BACKUP_KEEP', value: '3', from: '.env' })
    expect(of('DATABASE_URL').value).toBe('postgres://ada:(hidden)@db/todo')
    expect(stderr).toStartWith('Settings:\n')
    for (const name of ['PORT', 'SECRET_KEY_FILE', 'LOG_LEVEL']) expect(stderr).toContain(`  ${name} `)
    expect(stdout + stderr).not.toContain('geheim')
    expect(exitCode).toBe(2)
  })
})

describe('doctor fails, and says what to do', () => {
  const secret = '58b49a2cb5ab63ce16b08e9c6b9fcee5'
  const doctor = async (env: Env) => {
    const { exitCode, stdout } = await runCommand(['doctor'], { env })
    return { exitCode, problems: lines(stdout).filter(line => !line.startsWith('ok')) }
  }

  test('when settings are wrong: each mistake', async () => {
    expect(await doctor({ PORT: 'x', ALGORITHM: 'none' })).toEqual({
      exitCode: 1,
      problems: [
        expect.stringMatching(/^fail {2}settings .*PORT/),
        expect.stringMatching(/^fail {2}settings .*ALGORITHM/),
      ],
    })
  })

  test('when the database is away', async () => {
    const { exitCode, problems } = await doctor({
      DATABASE_URL: 'postgres://ada:geheim@127.0.0.1:1/x',
      SECRET_KEY: secret,
    })

    expect([exitCode, problems]).toEqual([1, [expect.stringMatching(/^fail {2}database .*ECONNREFUSED/)]])
    expect(problems.join()).not.toContain('geheim')
  })

  test('when migrations are pending: only a warning', async () => {
    const database = await emptyDatabase()
    expect(await doctor({ DATABASE_URL: database.url, SECRET_KEY: secret })).toEqual({
      exitCode: 0,
      problems: [expect.stringMatching(/^warn {2}migrations .*pending/)],
    })
    await database.drop()
  })

  test('when the server refuses writes, or the role may not', async () => {
    // A pooling proxy would go on with sessions from before the change.
    const place = await newPlace('postgres', { direct: true })
    const url = new URL(place.env.DATABASE_URL!)
    const name = url.pathname.slice(1)
    await execute(url.href, `alter database ${name} set default_transaction_read_only = on`)
    expect(await doctor(place.env)).toEqual({
      exitCode: 1,
      problems: [expect.stringMatching(/^fail {2}writing .*default_transaction_read_only is on/)],
    })

    await execute(
      url.href,
      `set transaction read write; alter database ${name} reset default_transaction_read_only`,
    )
    const role = `reader_${name}`
    await execute(url.href, `create role ${role} login password 'x'`)
    await execute(
      url.href,
      `grant usage on schema drizzle to ${role}; grant select on all tables in schema drizzle to ${role}`,
    )
    url.username = role
    url.password = 'x'
    expect(await doctor({ ...place.env, DATABASE_URL: url.href })).toEqual({
      exitCode: 1,
      problems: [expect.stringMatching(/^fail {2}writing .*not allowed: select on users/)],
    })
    await execute(place.env.DATABASE_URL!, `drop owned by ${role}; drop role ${role}`)
    await place.remove()
  })

  test('when the data folder is open to others', async () => {
    const dataDir = join(folder, 'open')
    mkdirSync(dataDir)
    writeFileSync(join(dataDir, 'letter'), '')
    for (const mode of [0o710, 0o704]) {
      chmodSync(dataDir, mode)
      expect(await doctor({ DATA_DIR: dataDir })).toEqual({
        exitCode: 0,
        problems: [expect.stringMatching(/^warn {2}data folder .*chmod 700/)],
      })
    }
  })
})

describe('wrong use', () => {
  test.each([
    [['user', 'nosuch']],
    [['help', 'nosuch']],
    [['user', 'create']],
    [['user', 'create', 'a@example.com', 'password']],
    [['user', 'create', 'a@example.com', '--password', 'x']],
    [['token', 'revoke', 'nosuch']],
    [['import']],
    [['import', 'a', '--from', 'postgres://db/x']],
    [['import', '--from', 'mysql://db/x']],
    [['import', '--from']],
    [['import', '--from', 'postgres://db/x?sslmode=on']],
    [['backup']],
    [['backup', '']],
    [['export', '']],
    [['token', 'list', '']],
    [['nosuch']],
  ])('%p: exit code 2, one message on stderr, nothing on stdout', async args => {
    const { exitCode, stdout, stderr } = await runCommand(args, { env: { DATA_DIR: join(folder, 'unused') } })

    expect([exitCode, stdout]).toEqual([2, ''])
    expect(lines(stderr)).toHaveLength(1)
  })

  test.each([
    ['user'],
    ['import'],
    ['export'],
    ['backup'],
    ['restore'],
    ['reset-sync'],
    ['config'],
    ['doctor'],
  ])('help %s shows examples', async command => {
    const { exitCode, stdout } = await runCommand(['help', command])

    expect(exitCode).toBe(0)
    expect(stdout).toMatch(/Examples?:\n {2}/)
  })
})

describe('healthcheck', () => {
  /** The result and what is said when a service answers so, or the message of the failure. */
  async function check(answer: () => Response | Promise<Response>, env: Env = {}) {
    let said = ''
    const output = spyOn(process.stderr, 'write').mockImplementation((text: string | Uint8Array) => {
      said += text
      return true
    })
    const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: answer })
    const settings = { HOST: '127.0.0.1', PORT: String(server.port), ...env }
    Object.assign(process.env, settings)
    try {
      return [await healthcheckCommand(), said]
    } catch (error) {
      return (error as Error).message.replace(String(server.port), 'PORT')
    } finally {
      output.mockRestore()
      for (const name of Object.keys(settings)) delete process.env[name]
      await server.stop(true)
    }
  }

  test('passes on what the service says of itself', async () => {
    expect(await check(() => new Response('ready'))).toEqual([true, 'ready\n'])
    expect(await check(() => new Response('stopping', { status: 503 }))).toEqual([false, 'stopping\n'])
    expect(await check(() => new Response('ready'), { HOST: '0.0.0.0' })).toEqual([true, 'ready\n'])
  })

  test('says why there is no answer, after 3 s at the latest', async () => {
    const limit = spyOn(AbortSignal, 'timeout')
    limit.mockImplementation(() => AbortSignal.abort(new DOMException('', 'TimeoutError')))
    const silent = await check(() => new Promise(() => {}))
    expect(limit.mock.calls).toEqual([[3000]])
    limit.mockRestore()

    expect(silent).toBe('http://127.0.0.1:PORT/health/ready does not answer (for 3 s)')
    expect(await check(() => new Response(), { PORT: '1' })).toBe(
      'http://127.0.0.1:1/health/ready does not answer (ECONNREFUSED)',
    )
  })
})

describe('help', () => {
  /** Runs the program in this process, which it would end. */
  async function run(...words: string[]) {
    let [stdout, stderr] = ['', '']
    const spies = [
      spyOn(process.stdout, 'write').mockImplementation((part: string | Uint8Array) => {
        stdout += part
        return true
      }),
      spyOn(process.stderr, 'write').mockImplementation((part: string | Uint8Array) => {
        stderr += part
        return true
      }),
      spyOn(process, 'exit').mockImplementation(code => {
        throw new Error(`exit code ${code}`)
      }),
    ]
    const end = await runProgram(words).then(
      () => 'success',
      error => error.message,
    )
    for (const spy of spies) spy.mockRestore()
    return { end, stdout, stderr }
  }

  /** What a call for help prints. */
  async function help(...words: string[]) {
    const { end, stdout } = await run(...words)
    expect(end).toBe('exit code 0')
    return stdout
  }

  test('says of every command how it is called, and what it does', async () => {
    // After a change on purpose, `bun run generate` writes the file again.
    const known = await Bun.file(join(import.meta.dir, 'fixtures/help.txt')).text()
    const inWords = (text: string) => text.split(/\s+/)
    expect(inWords(await allHelp(help))).toEqual(inWords(known))
  })

  test('is the same for `help user`', async () => {
    expect(await help('help', 'user')).toBe(await help('user', '--help'))
    expect(await help('help', 'user', 'create')).toBe(await help('user', 'create', '--help'))
  })

  test.each([
    'user create',
    'user reset-password',
    'user disable',
    'user enable',
    'user delete',
    'token create',
    'token revoke',
    'backup',
    'restore',
  ])('%s needs an argument', async words => {
    expect(await run(...words.split(' '))).toEqual({
      end: 'exit code 2',
      stdout: '',
      stderr: expect.stringContaining('missing required argument'),
    })
  })

  test('is offered for a command that is not there', async () => {
    expect(await run('serv')).toMatchObject({
      end: 'there is no command serv; `todo-api help` lists all of them',
    })
  })
})

const insertAda = `with ada as (
    insert into users (id, email, normalized_email, password_hash)
    values (gen_random_uuid(), 'ada@example.com', 'ada@example.com', 'x') returning id
  )
  insert into user_versions (user_id) select id from ada`

test('an account is changed before its sessions end, and held meanwhile', async () => {
  const place = await newPlace('postgres', { direct: true })
  const url = place.env.DATABASE_URL!
  await execute(url, insertAda)
  const meeting = createMeeting(url)
  const [disabling, found] = await meeting.sql.begin(async tx => {
    await tx`lock table sessions in share mode`
    const disabling = runCommand(['user', 'disable', 'ada@example.com'], place)
    await meeting.untilWaiting()
    return [[disabling], await execute(url, 'select id from users for no key update skip locked')] as const
  })
  await Promise.all(disabling)
  await meeting.close()
  await place.remove()

  expect([...found]).toEqual([])
})

test('an account is deleted with all of its tasks, also when a writer holds them for longer than a statement waits', async () => {
  const place = await newPlace('postgres', { direct: true })
  const url = place.env.DATABASE_URL!
  await execute(url, insertAda)
  const meeting = createMeeting(url)
  const [deleting] = await meeting.sql.begin(async tx => {
    await tx`select from user_versions for update`
    const deleting = runCommand(['user', 'delete', 'ada@example.com', '--yes'], place)
    await meeting.untilGivenUp()
    return [deleting]
  })
  const { exitCode } = await deleting!
  const left = await execute(url, 'select from user_versions')
  await meeting.close()
  await place.remove()

  expect([exitCode, left.length]).toEqual([0, 0])
})

test('every account is listed, however many there are, oldest first', async () => {
  const place = await newPlace('postgres')
  // Three of a moment, one of them on the next page.
  await execute(
    place.env.DATABASE_URL!,
    `insert into users (id, email, normalized_email, password_hash, created_at)
     select gen_random_uuid(), n || '@example.com', n || '@example.com', 'x', now() - n / 3 * interval '1 s'
     from generate_series(0, 1199) n`,
  )
  const { stdout } = await runCommand(['user', 'list'], place)
  await place.remove()

  const accounts = lines(stdout).map(line => JSON.parse(line))
  expect(accounts).toHaveLength(1200)
  expect(new Set(accounts.map(({ email }) => email)).size).toBe(1200)
  const times = accounts.map(({ created_at }) => created_at)
  expect(times).toEqual(times.toSorted())
})

describe('a command that fails', () => {
  const refused = Object.assign(new Error('permission denied for table users'), { code: '42501' })
  const away = new AppError('unavailable', { cause: new Error('connect ECONNREFUSED') })

  test.each([
    ['wrong use', new UsageError('name a FILE'), 'name a FILE', 2],
    ['wrong settings', new ConfigError(['PORT is wrong']), 'Settings:\n  PORT is wrong', 2],
    ['a wrong address', new DatabaseUrlError(['has no host']), 'The address of the database has no host', 2],
    ['a database that is away', away, 'the database is unavailable: connect ECONNREFUSED', 1],
    ['one that is away and says no more', new AppError('unavailable'), 'the database is unavailable', 1],
    ['an error of the database', refused, 'the database says: permission denied for table users', 1],
    [
      'a statement that failed, which may hold a secret',
      Object.assign(new Error('geheim', { cause: refused }), { query: 'select geheim' }),
      'the database says: permission denied for table users',
      1,
    ],
    [
      'a failure to close after another',
      new SuppressedError(new Error('close'), refused),
      expect.stringContaining('denied'),
      1,
    ],
    [
      'a migration',
      new MigrationError('0007_x', refused),
      expect.stringMatching(/^Migration 0007_x failed/),
      1,
    ],
    [
      'a database without tables',
      Object.assign(new Error('relation "users" does not exist'), { code: '42P01' }),
      'the database says: relation "users" does not exist; todo-api migrate makes what is missing',
      1,
    ],
    ['what is no error', 'geheim', 'unknown failure', 1],
    ['a reader that is gone', Object.assign(new Error('EPIPE'), { code: 'EPIPE' }), undefined, 1],
  ])('by %s ends with its message and code', (_, error, message, exitCode) => {
    expect(failureOf(error)).toEqual({ message, exitCode })
  })

  test('by a fault of the database says so, and not that an address is taken', async () => {
    const place = await newPlace('postgres', { direct: true })
    await execute(
      place.env.DATABASE_URL!,
      `alter table users add constraint no_ada check (email <> 'ada@x.y')`,
    )
    const made = await runCommand(['user', 'create', 'ada@x.y'], { ...place, stdin: 'correct horse' })
    await place.remove()

    expect(made).toEqual({
      exitCode: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^the database says: new row for relation "users" violates .*no_ada.*\n$/,
      ),
    })
  })
})

test.each(['user list', 'export'])('a reader of %s that goes away early costs no message', async words => {
  const place = await newPlace('postgres')
  await execute(
    place.env.DATABASE_URL!,
    `insert into users (id, email, normalized_email, password_hash)
     select gen_random_uuid(), n || '@example.com', n || '@example.com', 'x' from generate_series(1, 5000) n`,
  )
  const pipe = Bun.spawn(['sh', '-c', `"$0" ${words} | head -n 1`, await executablePath()], {
    env: { PATH: process.env.PATH, ...place.env },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const { stdout, stderr } = await outcomeOf(pipe)
  await place.remove()

  expect(lines(stdout)).toHaveLength(1)
  expect(stderr).toBe('')
})

test('an export that is interrupted leaves no file behind', async () => {
  const place = await newPlace('postgres', { direct: true })
  const meeting = createMeeting(place.env.DATABASE_URL!)
  const target = join(place.folder, 'exports')
  mkdirSync(target)
  const exitCode = await meeting.sql.begin(async tx => {
    await tx`lock table users in access exclusive mode`
    const child = Bun.spawn([await executablePath(), 'export', join(target, 'todo.ndjson')], {
      env: { PATH: process.env.PATH, ...place.env },
    })
    await until(() => readdirSync(target).length === 1)
    child.kill('SIGINT')
    return child.exited
  })

  expect([exitCode, readdirSync(target)]).toEqual([1, []])
  await meeting.close()
  await place.remove()
})
