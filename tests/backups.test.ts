import { afterAll, describe, expect, jest, spyOn, test } from 'bun:test'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { version } from '../package.json'
import * as archive from '../src/cli/backup/archive.ts'
import { backupCommand } from '../src/cli/backup/backup.ts'
import { withUnpacked } from '../src/cli/backup/read-through.ts'
import type { Env } from '../src/config/config.ts'
import { clusterBytes } from '../src/db/embedded/copy.ts'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { migrate } from '../src/db/migrator.ts'
import { startBackups } from '../src/server/backups.ts'
import { createLog } from '../src/telemetry/log.ts'
import { descendants } from './bench/measure.ts'
import { runCommand } from './support/command.ts'
import { executablePath, type Running, startExecutable, untilReady } from './support/executable.ts'
import { until } from './support/until.ts'

const root = mkdtempSync(join(tmpdir(), 'todo-api-backups-'))
afterAll(() => rmSync(root, { recursive: true }))

const newFolder = () => join(mkdtempSync(join(root, 'run-')), 'data')
const on = (dataDir: string, env: Env = {}): Env => ({
  ENVIRONMENT: 'test',
  BCRYPT_COST: '4',
  DATA_DIR: dataDir,
  ...env,
})

const events = (api: Running, msg: string) =>
  api.lines.map(line => JSON.parse(line)).filter(event => event.msg === msg)

/** What a backup that was ended would leave. */
const leftovers = (dataDir: string) =>
  readdirSync(dataDir, { recursive: true }).filter(name => /^copy-|\.part$/.test(String(name)))

describe('with BACKUP_EVERY', () => {
  test('the service makes verified backups, keeps BACKUP_KEEP of them, and says when the last one was', async () => {
    const dataDir = newFolder()
    const api = await startExecutable(
      on(dataDir, { BACKUP_EVERY: '1s', BACKUP_KEEP: '2', METRICS_TOKEN: 'a-token-for-metrics' }),
    )
    await untilReady(api)
    const before = (await api.get(`${api.url}/health/ready`)).body
    const ada = await api.user('ada@example.com')
    await api.task(ada, { title: 'kept' })
    await until(() => existsSync(join(dataDir, 'backups')))
    // One of long ago, and one of a clock that was wrong: it counts for none of those that are kept.
    for (const year of [2000, 2999])
      writeFileSync(join(dataDir, 'backups', `todo-api-${year}-01-01T000000Z.tar.gz`), '')
    // The first may have begun before the task was there; with the second there is one more than are kept.
    await until(() => events(api, 'backup made').length >= 2, 60)
    const after = (await api.get(`${api.url}/health/ready`)).body
    const metrics = await (
      await fetch(`${api.url}/metrics`, { headers: { authorization: 'Bearer a-token-for-metrics' } })
    ).text()
    await api.stop()

    const names = readdirSync(join(dataDir, 'backups')).sort()
    const newest = events(api, 'backup made').at(-1)
    expect(names).toHaveLength(3)
    expect(newest).toMatchObject({ file: join(dataDir, 'backups', names[1]!), bytes: expect.any(Number) })
    expect(statSync(newest.file)).toMatchObject({ size: newest.bytes })
    expect(statSync(newest.file).mode & 0o777).toBe(0o600)
    expect(statSync(join(dataDir, 'backups')).mode & 0o777).toBe(0o700)
    expect(before).toEqual({ status: 'ready', last_backup_at: null })
    expect(Date.now() - Date.parse(after.last_backup_at)).toBeLessThan(60_000)
    const last = Number(metrics.match(/^backup_last_success_timestamp_seconds (\S+)$/m)![1])
    expect(last).toBeGreaterThanOrEqual(Date.parse(after.last_backup_at) / 1000)
    expect(metrics).toMatch(/^backups_total\{outcome="ok"\} [2-9]$/m)
    expect(metrics).toMatch(/^backups_total\{outcome="failed"\} 0$/m)
    expect(leftovers(dataDir)).toEqual([])

    const target = newFolder()
    const restored = await runCommand(['restore', newest.file], { env: on(target) })
    expect([restored.exitCode, restored.stderr]).toEqual([0, `restored 1 users and 1 tasks into ${target}\n`])
    // For a todo-api with another PostgreSQL.
    const unpacked = mkdtempSync(join(root, 'unpacked-'))
    await archive.unpack(newest.file, unpacked)
    const contentOf = (name: string) => readFileSync(join(unpacked, name), 'utf8')
    expect(JSON.parse(contentOf('backup.json'))).toEqual({ program: version })
    expect(contentOf('export.ndjson')).toEndWith(
      '{"type":"end","user":1,"list":0,"task":1,"tombstone":0,"list_tombstone":0}\n',
    )
  }, 120_000)

  test('a backup that fails is logged and counted, deletes no older one, and is tried again; the file of a killed one goes', async () => {
    const dataDir = newFolder()
    const dir = join(mkdtempSync(join(root, 'backups-')), 'in', 'the way')
    writeFileSync(join(dir, '../..', 'in'), 'a file')
    const env = on(dataDir, { BACKUP_EVERY: '1s', BACKUP_DIR: dir, METRICS_TOKEN: 'a-token-for-metrics' })
    const api = await startExecutable(env)
    await until(() => events(api, 'backup failed').length >= 2, 60)
    const metrics = await (
      await fetch(`${api.url}/metrics`, { headers: { authorization: 'Bearer a-token-for-metrics' } })
    ).text()
    rmSync(join(dir, '..'))
    mkdirSync(dir, { recursive: true })
    const draft = `todo-api-2026-11-01T000000Z.tar.gz.${crypto.randomUUID()}.part`
    for (const name of [draft, 'notes.part']) writeFileSync(join(dir, name), '')
    await until(() => events(api, 'backup made').length >= 1, 60)
    const earlier = events(api, 'backup failed').length
    rmSync(join(dataDir, 'control'))
    await until(() => events(api, 'backup failed').length > earlier, 60)
    await api.stop()

    expect(events(api, 'backup failed')[earlier].reason).toContain(`DATA_DIR ${dataDir} is in use`)
    expect(events(api, 'backup failed')[0]).toMatchObject({
      level: 'error',
      reason: expect.stringMatching(/not a directory|file already exists|EEXIST|ENOTDIR/),
      again_in_seconds: 1,
    })
    expect(metrics).toMatch(/^backups_total\{outcome="failed"\} [2-9]/m)
    expect(metrics).toMatch(/^backup_last_success_timestamp_seconds 0$/m)
    expect(readdirSync(dir)).toContain('notes.part')
    expect(readdirSync(dir)).not.toContain(draft)
    expect(readdirSync(dir).length).toBeGreaterThan(1)
  }, 120_000)

  test('an old file that cannot be removed is named in a warning, and neither fails a backup nor keeps others', async () => {
    const dataDir = newFolder()
    const dir = join(dataDir, 'backups')
    // No file, so that even root cannot remove it as one.
    const [draft, old] = [
      join(dir, `todo-api-2026-11-01T000000Z.tar.gz.${crypto.randomUUID()}.part`),
      join(dir, 'todo-api-2026-11-01T000000Z.tar.gz'),
    ]
    for (const path of [draft, old]) mkdirSync(path, { recursive: true })
    const removable = join(dir, 'todo-api-2026-11-02T000000Z.tar.gz')
    writeFileSync(removable, '')
    const api = await startExecutable(on(dataDir, { BACKUP_EVERY: '1s', BACKUP_KEEP: '1' }))
    const named = () => events(api, 'old backup cannot be removed').map(({ file }) => file)
    await until(() => named().includes(old) || events(api, 'backup failed').length > 0, 60)
    await api.stop()

    expect(events(api, 'backup failed')).toEqual([])
    expect(existsSync(removable)).toBe(false)
    expect(new Set(named())).toEqual(new Set([draft, old]))
  }, 120_000)

  test.each([
    { everySeconds: 6 * 60 * 60, first: 10, again: 60 },
    { everySeconds: 5, first: 5, again: 5 },
  ])(
    'the first one is made after ten seconds, one that failed is tried again after a minute, both sooner in a shorter period: %p',
    async ({ everySeconds, first, again }) => {
      const file = join(mkdtempSync(join(root, 'file-')), 'file')
      writeFileSync(file, '')
      const lines: string[] = []
      const log = createLog({ level: 'error', pretty: false, write: text => void lines.push(text) })
      const failures = () => {
        log.flush()
        return lines
          .flatMap(text => text.trimEnd().split('\n'))
          .map(line => JSON.parse(line).again_in_seconds)
      }
      jest.useFakeTimers()
      try {
        const backups = startBackups({ everySeconds, keep: 1, dir: join(file, 'backups') }, log)
        const counts = [first * 1000 - 1, 1, again * 1000 - 1, 1].map(milliseconds => {
          jest.advanceTimersByTime(milliseconds)
          return failures().length
        })
        expect(counts).toEqual([0, 1, 1, 2])
        expect(failures()).toEqual([again, again])
        await backups.stop()
        expect(jest.getTimerCount()).toBe(0)
      } finally {
        jest.useRealTimers()
      }
    },
  )

  /** Replaces the process that makes a backup; `make` resolves to its exit code. */
  const spyOnMaking = (make: (file: string) => Promise<number>) =>
    spyOn(Bun, 'spawn').mockImplementation(((command: string[]) => ({
      pid: Number.NaN,
      stderr: '',
      exited: make(command.at(-1)!),
      kill() {},
    })) as never)

  test('the next one is due a period after the begin of the last one, however long that took', async () => {
    const dir = mkdtempSync(join(root, 'period-'))
    const log = createLog({ level: 'error', pretty: false, write: () => {} })
    const settle = async () => {
      for (let i = 0; i < 30; i++) await Promise.resolve()
    }
    const making = spyOnMaking(file => {
      writeFileSync(file, '')
      return Bun.sleep(20_000).then(() => 0)
    })
    jest.useFakeTimers()
    try {
      const backups = startBackups({ everySeconds: 60, keep: 9, dir }, log)
      const counts: number[] = []
      for (const seconds of [10, 20, 39, 1]) {
        jest.advanceTimersByTime(seconds * 1000)
        await settle()
        counts.push(making.mock.calls.length)
      }
      const stopped = backups.stop()
      jest.advanceTimersByTime(20_000)
      await stopped

      expect(counts).toEqual([1, 1, 1, 2])
    } finally {
      jest.useRealTimers()
      making.mockRestore()
    }
  })

  test('a backup that fails is not the last good one', async () => {
    const log = createLog({ level: 'error', pretty: false, write: () => {} })
    const failing = spyOnMaking(async () => 1)
    jest.useFakeTimers()
    try {
      const dir = mkdtempSync(join(root, 'failing-'))
      const backups = startBackups({ everySeconds: 60, keep: 1, dir }, log)
      jest.advanceTimersByTime(10_000)
      jest.useRealTimers()
      await until(() => backups.stats().outcomes.failed === 1)
      await backups.stop()

      expect(backups.stats()).toEqual({ lastGoodAt: undefined, outcomes: { ok: 0, failed: 1 } })
    } finally {
      jest.useRealTimers()
      failing.mockRestore()
    }
  })

  test('a restart makes no backup sooner, either', async () => {
    const dir = mkdtempSync(join(root, 'newest-'))
    const nameOf = (hoursAgo: number) => {
      const time = new Date(Date.now() - hoursAgo * 60 * 60 * 1000).toISOString()
      return `todo-api-${time.slice(0, 19).replaceAll(':', '')}Z.tar.gz`
    }
    // The newest of the backups; no draft and no file of another name is one.
    const draft = `${nameOf(0)}.${crypto.randomUUID()}.part`
    const names = [3, 1, 5, 2, 9, 4, 8, 6, 7].map(nameOf)
    for (const name of [...names, draft, `old-${nameOf(0)}`]) writeFileSync(join(dir, name), '')
    const timers = spyOn(globalThis, 'setTimeout')
    const log = createLog({ level: 'error', pretty: false, write: () => {} })
    const backups = startBackups({ everySeconds: 6 * 60 * 60, keep: 1, dir }, log)
    const hours = Number(timers.mock.lastCall![1]) / 1000 / 60 / 60
    timers.mockRestore()
    await backups.stop()

    expect(hours).toBeCloseTo(5, 1)
  })

  test('a backup dated in the future, by a clock that was wrong, delays none', async () => {
    const dir = mkdtempSync(join(root, 'future-'))
    const nameAt = (ms: number) =>
      `todo-api-${new Date(Date.now() + ms).toISOString().slice(0, 19).replaceAll(':', '')}Z.tar.gz`
    const hour = 60 * 60 * 1000
    writeFileSync(join(dir, nameAt(-hour)), '')
    writeFileSync(join(dir, nameAt(8 * 24 * hour)), '')
    const timers = spyOn(globalThis, 'setTimeout')
    const log = createLog({ level: 'error', pretty: false, write: () => {} })
    const backups = startBackups({ everySeconds: 6 * 60 * 60, keep: 2, dir }, log)
    const hours = Number(timers.mock.lastCall![1]) / hour
    timers.mockRestore()
    await backups.stop()

    expect(hours).toBeCloseTo(5, 1)
    expect(Date.now() - backups.stats().lastGoodAt!.getTime()).toBeWithin(hour, 2 * hour)
  })

  test('a restart delays no backup: the next one is due a period after the newest', async () => {
    const dataDir = newFolder()
    const dir = join(dataDir, 'backups')
    mkdirSync(dir, { recursive: true })
    const now = new Date().toISOString().slice(0, 19).replaceAll(':', '')
    writeFileSync(join(dir, `todo-api-${now}Z.tar.gz`), '')
    const api = await startExecutable(on(dataDir, { BACKUP_EVERY: '6h' }))
    await untilReady(api)
    const { body } = await api.get(`${api.url}/health/ready`)
    await api.stop()

    expect(body.last_backup_at).toBe(
      new Date(`${now.slice(0, 13)}:${now.slice(13, 15)}:${now.slice(15)}Z`).toISOString(),
    )
    expect(events(api, 'backup made')).toEqual([])
  }, 60_000)

  test('a backup has the lowest priority, goes first when memory runs out, may be killed, and is ended by a stop, which leaves nothing of it', async () => {
    const dataDir = newFolder()
    const program = join(mkdtempSync(join(root, 'program-')), 'todo-api')
    copyFileSync(await executablePath(), program)
    chmodSync(program, 0o755)
    const api = await startExecutable(on(dataDir, { BACKUP_EVERY: '1s' }), program)
    // An upgrade that takes effect at the next start: until then a backup is one by the running version.
    rmSync(program)
    writeFileSync(program, '#!/bin/false\n', { mode: 0o755 })
    await until(() => leftovers(dataDir).length > 0, 60)
    const [backup] = descendants(api.process.pid)
    const stat = readFileSync(`/proc/${backup}/stat`, 'utf8').replace(/.*\)/s, '').trim().split(' ')
    const words = readFileSync(`/proc/${backup}/cmdline`, 'utf8').split('\0')
    const firstToGo = readFileSync(`/proc/${backup}/oom_score_adj`, 'utf8').trim()
    process.kill(backup!, 'SIGKILL')
    await until(() => events(api, 'backup failed').length > 0)
    await until(() => descendants(api.process.pid).length > 0, 60)

    expect(stat[16]).toBe('19')
    expect(firstToGo).toBe('1000')
    expect(words.slice(1, 3)).toEqual(['backup', '--verify'])
    expect(events(api, 'backup failed')[0]).toMatchObject({ reason: 'ended by SIGKILL' })
    expect(await api.stop()).toBe(0)
    await until(() => leftovers(dataDir).length === 0, 10)
    const messages = api.lines.map(line => JSON.parse(line).msg)
    expect(messages.slice(messages.indexOf('stopping'))).not.toContain('backup failed')
  }, 120_000)

  test('the unit for systemd allows that priority', () => {
    const unit = readFileSync(join(import.meta.dir, '../deploy/todo-api.service'), 'utf8')
    const filters = [...unit.matchAll(/^SystemCallFilter=(.*)$/gm)].map(([, filter]) => filter)
    // The last line that names a call or its group decides: `@resources` holds this one.
    expect(filters.findLast(filter => /setpriority|@resources/.test(filter!))).toBe('setpriority')
  })

  test('doctor warns when the newest backup is older than two periods, or when there is none', async () => {
    const dataDir = newFolder()
    const dir = join(dataDir, 'backups')
    mkdirSync(dir, { recursive: true })
    const ageHours = async (hours: number | undefined) => {
      for (const name of readdirSync(dir)) rmSync(join(dir, name))
      if (hours !== undefined) {
        const time = new Date(Date.now() - hours * 3_600_000).toISOString().slice(0, 19).replaceAll(':', '')
        writeFileSync(join(dir, `todo-api-${time}Z.tar.gz`), '')
      }
      const { stdout, exitCode } = await runCommand(['doctor', '--json'], {
        env: on(dataDir, { BACKUP_EVERY: '6h' }),
      })
      const findings = stdout
        .trim()
        .split('\n')
        .map(line => JSON.parse(line))
      return [exitCode, findings.find(({ check }) => check === 'backups').verdict]
    }

    // Of a database that is not made yet there can be none.
    expect(await ageHours(undefined)).toEqual([0, 'ok'])
    await runCommand(['migrate'], { env: on(dataDir) })
    expect(await ageHours(undefined)).toEqual([0, 'warn'])
    expect(await ageHours(-100)).toEqual([0, 'warn'])
    expect(await ageHours(11)).toEqual([0, 'ok'])
    expect(await ageHours(13)).toEqual([0, 'warn'])
    rmSync(dir, { recursive: true })
    writeFileSync(dir, '')
    const { stdout, exitCode } = await runCommand(['doctor'], { env: on(dataDir, { BACKUP_EVERY: '6h' }) })
    expect([exitCode, stdout]).toEqual([
      1,
      expect.stringMatching(/^fail +backups +\S+ cannot be written to \(ENOTDIR\); .* set BACKUP_DIR/m),
    ])
  }, 60_000)
})

describe('backup --verify', () => {
  test('refuses a database that cannot be read in full, which a plain backup packs', async () => {
    const dataDir = newFolder()
    const driver = await openEmbedded({ dataDir })
    await migrate(driver, [])
    await driver.query(`create table ballast as select repeat('x', 100) from generate_series(1, 1000)`, [])
    const [[path] = []] = await driver.query(`select pg_relation_filepath('ballast')`, [])
    await driver.close()
    // The header of a page.
    const file = openSync(join(dataDir, 'cluster', String(path)), 'r+')
    writeSync(file, Buffer.alloc(24, 0x55), 0, 24, 8192)
    closeSync(file)

    const target = `${dataDir}.tar.gz`
    const verified = await runCommand(['backup', '--verify', target], { env: on(dataDir) })
    expect([verified.exitCode, verified.stderr]).toEqual([
      1,
      expect.stringContaining('is damaged: invalid page'),
    ])
    expect(readdirSync(join(dataDir, '..'))).toEqual(['data'])
    expect(leftovers(dataDir)).toEqual([])
    expect((await runCommand(['backup', target], { env: on(dataDir) })).exitCode).toBe(0)
  }, 60_000)

  test('refuses a file that has other rows than the database, though it can be read', async () => {
    const dataDir = newFolder()
    const driver = await openEmbedded({ dataDir })
    await migrate(driver, [])
    await driver.query(`insert into rate_limits values ('a', 1, 1), ('b', 1, 1)`, [])
    await driver.close()
    const { pack, unpack } = archive
    const packing = spyOn(archive, 'pack').mockImplementation(async (folder, output) => {
      await withUnpacked(folder, 'the copy', copy =>
        copy.query(`delete from rate_limits where key = 'a'`, []),
      )
      return pack(folder, output)
    })
    let mode = 0
    const unpacking = spyOn(archive, 'unpack').mockImplementation((file, folder) => {
      mode = statSync(folder).mode & 0o777
      return unpack(file, folder)
    })
    const target = `${dataDir}.tar.gz`
    process.env.DATA_DIR = dataDir
    try {
      await expect(backupCommand(target, { verify: true })).rejects.toThrow(
        'has other rows than the database',
      )
    } finally {
      delete process.env.DATA_DIR
      packing.mockRestore()
      unpacking.mockRestore()
    }

    expect(mode).toBe(0o700)
    expect(readdirSync(join(dataDir, '..'))).toEqual(['data'])
    expect(leftovers(dataDir)).toEqual([])
  }, 60_000)

  test('needs the name of a file, and says what it has read again', async () => {
    const dataDir = newFolder()
    await runCommand(['user', 'create', 'ada@example.com'], { env: on(dataDir), stdin: 'correct horse' })

    expect(await runCommand(['backup', '--verify', `${dataDir}.tar.gz`], { env: on(dataDir) })).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: expect.stringMatching(/^backup of \d+ MB written and read again: 1 users, 0 tasks\n$/),
    })
    expect(await runCommand(['backup', '--verify', '-'], { env: on(dataDir) })).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('needs the name of a file'),
    })
    const link = `${dataDir}.null`
    symlinkSync('/dev/null', link)
    const device = await runCommand(['backup', '--verify', link], { env: on(dataDir) })
    expect([device.exitCode, device.stderr]).toEqual([1, `${link} is not a file\n`])
  }, 60_000)

  const isRoot = process.getuid?.() === 0 && Bun.spawnSync(['unshare', '--mount', 'true']).exitCode === 0
  if (!isRoot) process.stderr.write('\nNOT RUN: the test of a small disk needs root.\n')
  test.skipIf(!isRoot)(
    'looks at the space first',
    async () => {
      const disk = mkdtempSync(join(root, 'disk-'))
      expect(Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', 'size=90m', 'todo-api-test', disk]).exitCode).toBe(
        0,
      )
      try {
        const dataDir = join(disk, 'data')
        await runCommand(['migrate'], { env: on(dataDir) })
        const elsewhere = newFolder()
        cpSync(dataDir, elsewhere, { recursive: true })
        const bytes = clusterBytes(join(dataDir, 'cluster'))
        const refusal = (place: string, times: number) => [
          1,
          expect.stringMatching(
            new RegExp(
              `^not enough space in ${place}: a verified backup needs ${Math.ceil((times * bytes + 64 * 2 ** 20) / 1e6)} MB, and \\d+ MB are free\n$`,
            ),
          ),
        ]
        const outcome = async (dataDir: string, file: string) => {
          const { exitCode, stderr } = await runCommand(['backup', '--verify', file], { env: on(dataDir) })
          return [exitCode, stderr]
        }

        expect(await outcome(dataDir, join(disk, 'x'))).toEqual(refusal(dataDir, 2))
        expect(await outcome(dataDir, `${elsewhere}.tar.gz`)).toEqual(refusal(dataDir, 1.5))
        expect(await outcome(elsewhere, join(disk, 'x'))).toEqual(refusal(disk, 0.5))
        expect(readdirSync(disk)).toEqual(['data'])
      } finally {
        Bun.spawnSync(['umount', disk])
      }
    },
    60_000,
  )
})

test('statements go on while the database is copied, and the copy is of one moment, whatever checkpoints do', async () => {
  const dataDir = newFolder()
  const driver = await openEmbedded({ dataDir })
  await driver.query('create table pairs (a int, b int)', [])
  await driver.query('insert into pairs select 0, 0 from generate_series(1, 1000)', [])
  await driver.query(`create table ballast as select repeat('x', 1000) from generate_series(1, 50000)`, [])
  const state = { isCopying: true }
  let during = 0
  const copy = join(`${dataDir}-copy`, 'cluster')
  const copying = driver.copyTo!(copy).finally(() => Object.assign(state, { isCopying: false }))
  for (let n = 1; state.isCopying; n++) {
    // Both columns of every row in one statement: a copy of two moments would have different numbers.
    await driver.query(`update pairs set a = ${n}, b = ${n}`, [])
    if (n % 5 === 0) await driver.query('checkpoint', [])
    // The log that is copied has more than one file.
    if (n === 3) await driver.query('select pg_switch_wal()', [])
    await driver.query('select 1 / 0', []).catch(() => {})
    await driver.query('select count(*) from pairs', [])
    during++
  }
  await copying
  // The log is not kept for ever.
  const slots = await driver.query('select * from pg_replication_slots', [])
  await driver.close()

  const opened = await openEmbedded({ dataDir: `${dataDir}-copy` })
  const rows = await opened.query('select count(*), min(a), max(a), min(b), max(b) from pairs', [])
  await opened.close()
  const [[count, ...numbers] = []] = rows
  expect(during).toBeGreaterThan(5)
  expect(slots).toEqual([])
  expect(count).toBe(1000)
  expect(new Set(numbers).size).toBe(1)
  expect(Number(numbers[0])).toBeLessThanOrEqual(during)
}, 120_000)

test('a copy that cannot be finished leaves nothing, and the next one can be made', async () => {
  const driver = await openEmbedded({ dataDir: newFolder() })
  const target = join(mkdtempSync(join(root, 'copy-')), 'cluster')
  mkdirSync(join(target, 'base'), { recursive: true })
  // As if it could not be dropped.
  await driver.query(`select pg_create_physical_replication_slot('copy')`, [])
  await expect(driver.copyTo!(target)).rejects.toThrow('EEXIST')
  expect(existsSync(target)).toBe(false)

  await driver.copyTo!(target)
  await driver.close()
  const modes = [target, join(target, 'backup_label')].map(path => statSync(path).mode & 0o777)
  expect(modes).toEqual([0o700, 0o600])
}, 60_000)

test('a copy whose folder is taken away meanwhile fails, and is not made again', async () => {
  const dataDir = newFolder()
  const driver = await openEmbedded({ dataDir })
  // Copied last, when all folders are made.
  for (let n = 1000; n < 3000; n++) writeFileSync(join(dataDir, 'cluster', `z${n}`), '')
  const target = join(mkdtempSync(join(root, 'copy-')), 'cluster')
  const copying = driver.copyTo!(target).catch(error => error)
  while (!existsSync(join(target, 'z1000'))) await Bun.sleep(0)
  renameSync(target, `${target}-elsewhere`)
  const failure = await copying
  await driver.close()

  expect(failure).toMatchObject({ code: 'ENOENT' })
  expect(existsSync(target)).toBe(false)
}, 60_000)

test('a copy that ends with its process keeps no log of the next start', async () => {
  const dataDir = newFolder()
  const program = `
    import { openEmbedded } from ${JSON.stringify(join(import.meta.dir, '../src/db/embedded/embedded.ts'))}
    const driver = await openEmbedded({ dataDir: ${JSON.stringify(dataDir)} })
    void driver.copyTo(${JSON.stringify(join(`${dataDir}-copy`, 'cluster'))})
    while ((await driver.query('select 1 from pg_replication_slots', [])).length === 0) await Bun.sleep(0)
    process.kill(process.pid, 'SIGKILL')`
  await Bun.spawn([process.execPath, '-e', program], { stdio: ['ignore', 'ignore', 'inherit'] }).exited
  expect(readdirSync(join(dataDir, 'cluster', 'pg_replslot'))).toEqual(['copy'])

  const driver = await openEmbedded({ dataDir })
  const slots = await driver.query('select * from pg_replication_slots', [])
  await driver.copyTo!(join(`${dataDir}-next`, 'cluster'))
  await driver.close()
  expect(slots).toEqual([])
}, 60_000)

test('two copies at the same time are both whole, and a stop in between is an error', async () => {
  const dataDir = newFolder()
  const driver = await openEmbedded({ dataDir })
  const targets = [1, 2].map(n => `${dataDir}-copy-${n}`)
  await Promise.all(targets.map(target => driver.copyTo!(join(target, 'cluster'))))
  const late = driver.copyTo!(join(`${dataDir}-late`, 'cluster')).catch(error => error)
  await driver.close()

  for (const target of targets) {
    const copy = await openEmbedded({ dataDir: target })
    expect(await copy.query('select 1', [])).toEqual([[1]])
    await copy.close()
  }
  expect(await late).toMatchObject({ code: 'unavailable' })
}, 120_000)
