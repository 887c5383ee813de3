import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create } from 'tar'
import { connectToService } from '../src/cli/control-socket.ts'
import { openDataDir } from '../src/config/data-dir.ts'
import { openDriver } from '../src/db/open-driver.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { executablePath, type Running, startExecutable } from './support/executable.ts'
import { until } from './support/until.ts'

const root = mkdtempSync(join(tmpdir(), 'todo-api-backup-'))
afterAll(() => rmSync(root, { recursive: true }))

/** Settings of a service on a data folder of its own, without a secret: the service makes one. */
const on = (dataDir: string) => ({
  ENVIRONMENT: 'test',
  BCRYPT_COST: '4',
  DATA_DIR: dataDir,
  LOGIN_LIMIT: '0',
})

const newFolder = (name: string) => join(mkdtempSync(join(root, 'run-')), name)

describe('a backup of a service that is being written to', () => {
  const [dataDir, file, restored] = ['data', 'todo.tar.gz', 'restored'].map(name => newFolder(name)) as [
    string,
    string,
    string,
  ]
  let token: string
  let answered: string[]

  beforeAll(async () => {
    const api = await startExecutable(on(dataDir))
    const ada = await api.user('ada@example.com')
    token = ada.token
    const written: string[] = []
    let writing = true
    const writers = [1, 2, 3, 4].map(async writer => {
      for (let n = 0; writing; n++) {
        const task = await api.task(ada, {
          title: `Task ${n} of writer ${writer}`,
          description: 'x'.repeat(1000),
        })
        written.push(task.id)
      }
    })
    while (written.length < 200) await Bun.sleep(10)
    answered = [...written]
    // More users than are moved ahead in one statement.
    await (await connectToService(dataDir))!.query(
      'insert into user_versions (user_id, last_version) select gen_random_uuid(), 5 from generate_series(1, 250)',
      [],
    )
    const backup = await runCommand(['backup', file], { env: on(dataDir) })
    writing = false
    await Promise.all(writers)
    const stderr = expect.stringMatching(/^backup of [1-9]\d* MB written\n$/)
    expect(backup).toEqual({ exitCode: 0, stdout: '', stderr })
    expect(readdirSync(dataDir).sort()).toEqual(['cluster', 'control', 'lock', 'secret_key'])
    expect(await api.stop()).toBe(0)
    expect(existsSync(join(dataDir, 'control'))).toBe(false)
  }, 60_000)

  test('holds everything that was answered before, and every number once', async () => {
    expect(await runCommand(['restore', file], { env: on(restored) })).toMatchObject({
      exitCode: 0,
      stdout: '',
      stderr: expect.stringMatching(new RegExp(`^restored 1 users and \\d+ tasks into ${restored}\n$`)),
    })
    const driver = await openDriver({ kind: 'embedded', dataDir: restored })
    try {
      const rows = await driver.query('select id, version from tasks', [])
      const ids = new Set(rows.map(([id]) => id))
      const [[last_version] = []] = await driver.query('select min(last_version) from user_versions', [])

      expect(answered.filter(id => !ids.has(id))).toEqual([])
      const versions = rows.map(([, version]) => Number(version)).sort((a, b) => a - b)
      expect(versions).toEqual(versions.map((_, i) => versions[0]! + i))
      // New ones, in place of those that clients hold.
      expect(versions[0]).toBeGreaterThan(2 ** 32)
      expect(Number(last_version)).toBeGreaterThan(2 ** 32)
    } finally {
      await driver.close()
    }
  }, 30_000)

  test('brings the secret along: who was signed in still is', async () => {
    const api = await startExecutable(on(restored))

    expect((await api.get('/users/me', { token })).body).toMatchObject({ email: 'ada@example.com' })
    expect(
      (await api.post('/auth/login', { json: { email: 'ada@example.com', password: 'correct horse' } }))
        .status,
    ).toBe(200)
    expect(await api.stop()).toBe(0)
  }, 30_000)

  test('is readable by its owner only', () => {
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(statSync(restored).mode & 0o777).toBe(0o700)
    expect(statSync(join(restored, 'secret_key')).mode & 0o777).toBe(0o600)
    expect(statSync(join(restored, 'cluster', 'PG_VERSION')).mode & 0o777).toBe(0o600)
  })

  test('is written whole or not at all', async () => {
    const before = readFileSync(file)
    const missing = await runCommand(['backup', join(root, 'nowhere', 'x.tar.gz')], { env: on(dataDir) })

    expect([missing.exitCode, missing.stderr]).toEqual([
      1,
      `x.tar.gz was not written: there is no folder ${join(root, 'nowhere')}\n`,
    ])
    expect(readFileSync(file).equals(before)).toBe(true)
  })

  test('goes to stdout and comes from stdin, without a service, too', async () => {
    const target = newFolder('data')
    const through = Bun.spawn(
      ['sh', '-c', '"$0" backup - | DATA_DIR="$TARGET" "$0" restore -', await executablePath()],
      { env: { PATH: process.env.PATH, ...on(dataDir), TARGET: target }, stderr: 'pipe' },
    )
    const stderr = await new Response(through.stderr).text()

    expect(stderr).toContain('restored 1 users')
    expect(await through.exited).toBe(0)
  }, 30_000)
})

describe('restore', () => {
  const [dataDir, file] = ['data', 'todo.tar.gz'].map(name => newFolder(name)) as [string, string]
  const place = { env: on(dataDir) }
  const users = async () => (await runCommand(['user', 'list'], place)).stdout.trim().split('\n').length

  beforeAll(async () => {
    await runCommand(['user', 'create', 'ada@example.com'], { ...place, stdin: 'correct horse\n' })
    expect((await runCommand(['backup', file], place)).exitCode).toBe(0)
    await runCommand(['user', 'create', 'bob@example.com'], { ...place, stdin: 'correct horse\n' })
  }, 30_000)

  test('leaves a database alone unless it has to; then it sets it aside', async () => {
    const refused = await runCommand(['restore', file], place)
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining('--force')])
    expect(await users()).toBe(2)

    const forced = await runCommand(['restore', '--force', file], place)
    expect([forced.exitCode, forced.stderr]).toEqual([
      0,
      expect.stringContaining('delete it when it is no longer needed'),
    ])
    expect(await users()).toBe(1)

    const aside = readdirSync(dataDir).find(name => name.startsWith('replaced-'))!
    const old = await runCommand(['user', 'list'], { env: on(join(dataDir, aside)) })
    expect(old.stdout).toContain('bob@example.com')
  }, 30_000)

  const cut = (path: string) => {
    writeFileSync(path, readFileSync(file))
    truncateSync(path, statSync(file).size - 1000)
  }
  const garbled = (path: string) => {
    const bytes = readFileSync(file)
    const middle = bytes.length >> 1
    bytes.fill(0x55, middle, middle + 64)
    writeFileSync(path, bytes)
  }
  const text = (path: string) => writeFileSync(path, 'not an archive at all\n'.repeat(100))
  const empty = (path: string) => writeFileSync(path, '')
  const archiveOf = (name: string) => (path: string) => {
    const folder = newFolder('other')
    mkdirSync(folder)
    writeFileSync(join(folder, name), 'Dear Ada')
    create({ file: path, cwd: folder, gzip: true, sync: true }, [name])
  }
  const folderAt = (path: string) => void mkdirSync(path)
  const missing = () => {}

  test.each([
    ['cut off', cut, 'is not a backup, or is damaged: '],
    ['garbled', garbled, 'is not a backup, or is damaged: '],
    ['of text', text, 'is not a backup, or is damaged: '],
    ['empty', empty, 'is not a backup, or is damaged: '],
    ['of another archive', archiveOf('letter'), 'does not have the files of a backup'],
    ['with nothing but the version', archiveOf('backup.json'), 'does not have the files of a backup'],
    ['that is a folder', folderAt, 'cannot be read: '],
    ['that is not there', missing, 'there is no file '],
  ])('refuses a file %s and changes nothing', async (_, make, reason) => {
    const bad = newFolder('bad.tar.gz')
    make(bad)
    const before = readdirSync(dataDir).sort()
    const { exitCode, stderr } = await runCommand(['restore', '--force', bad], place)

    expect([exitCode, stderr]).toEqual([1, expect.stringContaining(reason)])
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(readdirSync(dataDir).sort()).toEqual(before)
    expect(await users()).toBe(1)
  })

  test('refuses a backup that a newer program made', async () => {
    const newer = newFolder('data')
    await runCommand(['restore', file], { env: on(newer) })
    const driver = await openDriver({ kind: 'embedded', dataDir: newer })
    await driver.query(
      `insert into drizzle.__drizzle_migrations (hash, created_at) values ('later', 9999999999999)`,
      [],
    )
    await driver.close()
    const bad = newFolder('newer.tar.gz')
    await runCommand(['backup', bad], { env: on(newer) })
    const { exitCode, stderr } = await runCommand(['restore', '--force', bad], place)

    expect([exitCode, stderr]).toEqual([
      1,
      'a newer todo-api made this backup; restore it with that version\n',
    ])
  }, 30_000)

  test('refuses to run beside a service, and says so', async () => {
    const api: Running = await startExecutable(on(dataDir))
    const { exitCode, stderr } = await runCommand(['restore', '--force', file], place)

    expect([exitCode, stderr]).toEqual([1, expect.stringContaining('stop the service first')])
    expect(await api.stop()).toBe(0)
  }, 30_000)
})

describe('a restore that is killed', () => {
  const [dataDir, file] = ['data', 'todo.tar.gz'].map(name => newFolder(name)) as [string, string]
  const otherSecret = 'f'.repeat(64)

  /**
   * Restores in a process that copies the folder before each of the renames that put the backup in its place, which is what
   * a kill at that moment leaves, and kills itself before the n-th. Returns the copies.
   */
  async function restoreUntil(n: number, dataDir: string): Promise<string[]> {
    const copies = newFolder('copies')
    const script = join(newFolder('killed.test.ts'))
    const source = JSON.stringify(join(import.meta.dir, '../src/cli/backup/restore.ts'))
    writeFileSync(
      script,
      `import { mock, test } from 'bun:test'
       import * as nodeFs from 'node:fs'
       const fs = { ...nodeFs }
       let renames = 0
       mock.module('node:fs', () => ({
         ...fs,
         renameSync(from, to) {
           if (\`\${from} \${to}\`.includes('restore.ready')) {
             if (++renames === ${n}) process.kill(process.pid, 'SIGKILL')
             fs.cpSync(${JSON.stringify(dataDir)}, ${JSON.stringify(copies)} + '/' + renames, { recursive: true })
           }
           fs.renameSync(from, to)
         },
       }))
       test('restore', async () => {
         const { restoreCommand } = await import(${source})
         await restoreCommand(${JSON.stringify(file)}, { force: true })
       }, 60_000)`,
    )
    const child = Bun.spawn([process.execPath, 'test', script], {
      cwd: join(import.meta.dir, '..'),
      env: { PATH: process.env.PATH, ...on(dataDir) },
      stdout: 'ignore',
      stderr: 'pipe',
    })
    const stderr = await child.stderr.text()
    await child.exited
    if (n === Infinity) expect([child.exitCode, stderr]).toEqual([0, stderr])
    else expect(child.signalCode).toBe('SIGKILL')
    return readdirSync(copies)
      .sort()
      .map(name => join(copies, name))
  }

  beforeAll(async () => {
    const api = await startExecutable(on(dataDir))
    await api.user('ada@example.com')
    expect((await runCommand(['backup', file], { env: on(dataDir) })).exitCode).toBe(0)
    await api.user('bob@example.com')
    await api.stop()
    writeFileSync(join(dataDir, 'secret_key'), otherSecret)
  }, 60_000)

  const newCopy = () => {
    const copy = newFolder('data')
    cpSync(dataDir, copy, { recursive: true })
    return copy
  }

  /** Which database the next command finds in a folder. */
  async function look(folder: string) {
    const { stdout, stderr, exitCode } = await runCommand(['user', 'list'], { env: on(folder) })
    const accounts = stdout.trim().split('\n').length
    const secret = readFileSync(join(folder, 'secret_key'), 'utf8')
    const aside = readdirSync(folder).filter(name => name.startsWith('replaced-'))

    expect(exitCode).toBe(0)
    // Database and secret belong together, and what was replaced is whole.
    expect(secret === otherSecret).toBe(accounts === 2)
    expect(aside.map(name => readdirSync(join(folder, name)).sort())).toEqual(
      accounts === 2 ? [] : [['cluster', 'secret_key']],
    )
    const finished = `todo-api: finished a restore that was interrupted; what was there before is in ${join(folder, `${aside[0]}`)}\n`
    return { found: accounts === 2 ? 'old' : 'restored', stderr, finished }
  }

  test('leaves the old database or the restored one, at each step, and the next start says so', async () => {
    const whole = newCopy()
    const found: string[] = []
    for (const copy of await restoreUntil(Infinity, whole)) {
      const state = await look(copy)
      expect(state.stderr).toBe(state.found === 'old' ? '' : state.finished)
      found.push(state.found)
    }
    // The first rename decides; five more move secret and database, and name what was replaced.
    expect(found).toEqual(['old', ...Array(5).fill('restored')])
    expect(await look(whole)).toMatchObject({ found: 'restored', stderr: '' })

    const killed = newCopy()
    await restoreUntil(4, killed)
    const state = await look(killed)
    expect([state.found, state.stderr]).toEqual(['restored', state.finished])
  }, 240_000)

  test('is finished, too, when nothing can be written to stderr', async () => {
    const copy = newCopy()
    await restoreUntil(4, copy)
    const command = [await executablePath(), 'user', 'list', '--json']
    const child = Bun.spawn(['sh', '-c', 'exec "$@" 2>/dev/full', 'sh', ...command], { env: on(copy) })

    expect((await child.stdout.text()).trim().split('\n')).toHaveLength(1)
    expect(await child.exited).toBe(0)
    expect((await look(copy)).found).toBe('restored')
  }, 60_000)
})

test.each([
  ['SIGTERM', 1],
  ['SIGKILL', null],
] as const)('a restore that is ended by %s leaves nothing behind for long', async (signal, exitCode) => {
  const dataDir = newFolder('ended')
  const command = Bun.spawn([await executablePath(), 'restore', '-'], {
    env: { ...on(dataDir) },
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const unpacked = join(dataDir, 'restore.new')
  await until(() => existsSync(unpacked))
  command.kill(signal)
  await command.exited
  expect(command.exitCode).toBe(exitCode)
  expect(existsSync(unpacked)).toBe(signal === 'SIGKILL')
  openDataDir(dataDir).close()

  expect(existsSync(unpacked)).toBe(false)
})

test('a secret that is damaged is not restored, and stops no start', async () => {
  const [dataDir, file, restored] = [newFolder('data'), newFolder('todo.tar.gz'), newFolder('restored')]
  await runCommand(['user', 'create', 'ada@example.com'], { env: on(dataDir), stdin: 'correct horse' })
  writeFileSync(join(dataDir, 'secret_key'), 'half')
  await runCommand(['backup', file], { env: on(dataDir) })

  const { exitCode, stderr } = await runCommand(['restore', file], { env: on(restored) })

  expect([exitCode, stderr]).toEqual([0, expect.stringContaining('the secret in the backup is damaged')])
  const api = await startExecutable(on(restored))
  expect((await api.user('bob@example.com')).token).toBeString()
  await api.stop()
})

test.each(['backup', 'export'])(
  '%s into a folder that does not exist is refused before the service copies its database',
  async command => {
    const dataDir = newFolder('data')
    const api = await startExecutable(on(dataDir))
    const made = new Set<string>()
    const watcher = watch(dataDir, (_, name) => void made.add(name!.replace(/-.*/, '')))
    const refused = await runCommand([command, join(root, 'nowhere', 'x')], { env: on(dataDir) })
    const before = [...made]
    await runCommand([command, newFolder('x')], { env: on(dataDir) })
    await until(() => made.has('copy'))
    watcher.close()
    await api.stop()

    expect(refused.stderr).toBe(`x was not written: there is no folder ${join(root, 'nowhere')}\n`)
    expect(before).not.toContain('copy')
  },
  60_000,
)

test('a backup waits for no process that has the folder: it would not be of one moment', async () => {
  const dataDir = newFolder('data')
  await runCommand(['user', 'create', 'ada@example.com'], { env: on(dataDir), stdin: 'correct horse\n' })
  const claimed = openDataDir(dataDir)
  const { exitCode, stderr } = await runCommand(['backup', `${dataDir}.tar.gz`], { env: on(dataDir) })
  claimed.close()

  expect([exitCode, stderr]).toEqual([1, expect.stringContaining(`DATA_DIR ${dataDir} is in use`)])
  expect(existsSync(`${dataDir}.tar.gz`)).toBe(false)
}, 60_000)

test('with DATABASE_URL, backup and restore name the tools of PostgreSQL', async () => {
  const place: Place = await newPlace('postgres')
  const backup = await runCommand(['backup', 'x'], place)
  const restore = await runCommand(['restore', 'x'], place)
  await place.remove()

  expect([backup.exitCode, restore.exitCode]).toEqual([2, 2])
  expect(backup.stderr).toContain('pg_dump')
  expect(restore.stderr).toContain('pg_restore')
})

test('without a database there is nothing to back up, and nothing is made', async () => {
  const dataDir = newFolder('data')
  const { exitCode, stderr } = await runCommand(['backup', 'x'], { env: on(dataDir) })

  expect([exitCode, stderr]).toEqual([1, expect.stringContaining('there is no database')])
  expect(existsSync(dataDir)).toBe(false)
})
