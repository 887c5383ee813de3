import { afterAll, describe, expect, mock, spyOn, test } from 'bun:test'
import * as nodeFs from 'node:fs'
import * as nodePromises from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { create } from 'tar'
import type { EngineModule } from '../src/db/embedded/durable-fs.ts'

/**
 * What must be on disk, and in which order. A crash of the machine cannot be made here, so the calls to the file system
 * are recorded on their way through.
 */
const fs = { ...nodeFs }
const promises = { ...nodePromises }
const names = new Map<number, string>()
let events: string[] = []
/** What had which mode when it got its name. */
const modes = new Map<string, number>()
/** Bytes, instead of what is free. */
let free: number | (() => number) | undefined
/** A call that fails meanwhile, and why. */
let failing: { call: 'open' | 'chmod' | 'fsync'; code: string } | undefined
const attempt = (call: 'open' | 'chmod' | 'fsync', path: string | undefined) => {
  if (failing?.call !== call) return
  throw Object.assign(new Error(`${failing.code}: ${call} '${path}'`), { code: failing.code, path })
}

mock.module('node:fs', () => ({
  ...fs,
  openSync(...args: Parameters<typeof fs.openSync>) {
    attempt('open', String(args[0]))
    const file = fs.openSync(...args)
    names.set(file, String(args[0]))
    return file
  },
  chmodSync(...args: Parameters<typeof fs.chmodSync>) {
    attempt('chmod', String(args[0]))
    fs.chmodSync(...args)
  },
  fsyncSync(file: number) {
    attempt('fsync', names.get(file))
    events.push(`sync ${names.get(file)}`)
    fs.fsyncSync(file)
  },
  statfsSync: (path: string) =>
    free === undefined
      ? fs.statfsSync(path)
      : { bavail: (typeof free === 'number' ? free : free()) / 512, bsize: 512 },
  renameSync(from: string, to: string) {
    events.push(`rename ${to}`)
    modes.set(to, fs.statSync(from).mode & 0o777)
    fs.renameSync(from, to)
  },
}))
mock.module('node:fs/promises', () => ({
  ...promises,
  async open(...args: Parameters<typeof promises.open>) {
    const file = await promises.open(...args)
    const sync = file.sync.bind(file)
    return Object.assign(file, {
      async sync() {
        events.push(`sync ${args[0]}`)
        await sync()
      },
    })
  },
}))
// Loaded now: they get the functions above.
const { openDataDir, prepareDataDir } = await import('../src/config/data-dir.ts')
const { loadSecretKey } = await import('../src/config/secret-key.ts')
const { DurableFS } = await import('../src/db/embedded/durable-fs.ts')
const { ensureCluster } = await import('../src/db/embedded/cluster-files.ts')
const { openEmbedded } = await import('../src/db/embedded/embedded.ts')
const { migrate } = await import('../src/db/migrator.ts')
const { writeOutput } = await import('../src/cli/atomic-file.ts')
const { unpack } = await import('../src/cli/backup/archive.ts')
const { backupCommand } = await import('../src/cli/backup/backup.ts')
const { restoreCommand } = await import('../src/cli/backup/restore.ts')

const root = fs.mkdtempSync(join(tmpdir(), 'todo-api-disk-'))
afterAll(() => {
  mock.module('node:fs', () => fs)
  mock.module('node:fs/promises', () => promises)
  fs.rmSync(root, { recursive: true })
})
const folder = () => fs.mkdtempSync(join(root, 'test-'))

const filesOf = (path: string) =>
  fs
    .readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
const bytesOf = (path: string) => filesOf(path).reduce((sum, file) => sum + fs.statSync(file).size, 0)
const openFiles = () => fs.readdirSync('/proc/self/fd').length
const mebibyte = 1024 * 1024

/** What happens on disk meanwhile. */
async function during(work: () => unknown): Promise<string[]> {
  events = []
  await work()
  return events
}

/** Opens a database whose maintenance runs when the test says so: `round`. */
async function openWithMaintenance(dataDir: string) {
  const timers = spyOn(globalThis, 'setInterval')
  try {
    const driver = await openEmbedded({ dataDir })
    const [round] = timers.mock.calls.find(([, everyMs]) => everyMs === 60_000)!
    return { driver, round: round as () => Promise<void> }
  } finally {
    timers.mockRestore()
  }
}

describe('a data folder', () => {
  test('is on disk with every folder above it that was made', async () => {
    const top = folder()

    expect(await during(() => prepareDataDir(join(top, 'a/b/c')))).toEqual([
      `sync ${top}/a/b`,
      `sync ${top}/a`,
      `sync ${top}`,
    ])
    expect(await during(() => prepareDataDir(`${top}/a/b/../d//e/`))).toEqual([
      `sync ${top}/a/d`,
      `sync ${top}/a`,
    ])
  })

  test.skipIf(process.getuid?.() !== 0)('may be the first one of the root folder', async () => {
    const path = `/todo-api-test-${crypto.randomUUID()}`
    try {
      expect(await during(() => prepareDataDir(join(path, 'data')))).toEqual([`sync ${path}`, 'sync /'])
    } finally {
      fs.rmSync(path, { recursive: true, force: true })
    }
  })

  test('that was empty and open to others is closed to them', () => {
    const top = folder()
    fs.chmodSync(top, 0o755)
    prepareDataDir(top)

    expect(fs.statSync(top).mode & 0o777).toBe(0o700)
  })

  test('that was empty and belongs to another user is used as it is', () => {
    const top = folder()
    failing = { call: 'chmod', code: 'EPERM' }
    try {
      prepareDataDir(top)
    } finally {
      failing = undefined
    }
  })

  test('whose disk fails when the secret is made has no part of it', () => {
    const top = folder()
    const before = openFiles()
    failing = { call: 'fsync', code: 'EIO' }
    try {
      fs.writeFileSync(join(top, 'letter'), '')
      expect(() => loadSecretKey(top)).toThrow('EIO')
    } finally {
      failing = undefined
    }
    expect(fs.readdirSync(top).sort()).toEqual(['letter', 'secret_key.lock'])
    expect(openFiles()).toBe(before)
    expect(loadSecretKey(top)).toHaveLength(64)
  })

  test('with files in it keeps its mode: it may be used for more', () => {
    const top = folder()
    fs.chmodSync(top, 0o755)
    fs.writeFileSync(join(top, 'letter'), '')
    prepareDataDir(top)

    expect(fs.statSync(top).mode & 0o777).toBe(0o755)
  })

  test('whose interrupted restore cannot be finished is free, and the next one that opens it finishes', () => {
    const top = folder()
    for (const path of ['cluster', 'restore.ready/cluster'])
      fs.mkdirSync(join(top, path), { recursive: true })
    const obstacle = join(top, 'restore.ready/replaced')
    fs.writeFileSync(obstacle, '')

    expect(() => openDataDir(top)).toThrow(`DATA_DIR ${top} cannot be used: a file is in the way`)
    fs.rmSync(obstacle)
    const opened = openDataDir(relative(process.cwd(), top))
    opened.close()
    expect(opened.path).toBe(top)
    expect(fs.readdirSync(top).sort()).toEqual(['cluster', 'lock', expect.stringMatching(/^replaced-/)])
  })
})

test('files that were written or synced are closed again', async () => {
  const before = openFiles()
  loadSecretKey(join(folder(), 'a/b'))
  await writeOutput(join(folder(), 'result'), output => output.write('x'))

  expect(openFiles()).toBe(before)
})

test('a sync of the engine reaches the disk, and one that fails is reported to the engine', async () => {
  class ErrnoError extends Error {
    constructor(readonly errno: number) {
      super(`errno ${errno}`)
    }
  }
  const module = {
    NODEFS: { node_ops: {}, stream_ops: {} as { fsync(stream: { nfd: number }): number } },
    FS: { ErrnoError },
  }
  class Repaired extends DurableFS {
    constructor() {
      super(root)
      this.patch(module as unknown as EngineModule)
    }
  }
  new Repaired()
  const path = join(folder(), 'file')
  const file = fs.openSync(path, 'w')
  names.set(file, path)
  const { fsync } = module.NODEFS.stream_ops

  expect(await during(() => fsync({ nfd: file }))).toEqual([`sync ${path}`])
  fs.closeSync(file)
  const inputOutputError = 29
  expect(() => fsync({ nfd: 1_000_000 })).toThrow(expect.objectContaining({ errno: inputOutputError }))
})

test('a first database is on disk before it has its name, and its name after that', async () => {
  const top = folder()
  const seen = await during(() => ensureCluster(join(top, 'cluster')))
  const renamed = seen.indexOf(`rename ${top}/cluster`)
  const before = new Set(seen.slice(0, renamed))
  const files = filesOf(join(top, 'cluster'))
  const folders = [...new Set(files.map(dirname))]
  const built = (path: string) => path.replace(`${top}/cluster`, `${top}/cluster.new`)

  expect(files.length).toBeGreaterThan(100)
  expect([...files, ...folders].filter(path => !before.has(`sync ${built(path)}`))).toEqual([])
  expect(seen.slice(renamed + 1)).toEqual([`sync ${top}`])
  expect([...files, ...folders].filter(path => (fs.statSync(path).mode & 0o077) !== 0)).toEqual([])
  // It was shut down when it was built, and its templates for further databases were dropped.
  expect(files.filter(path => path.endsWith('/postmaster.pid'))).toEqual([])
  const stateShutDown = 1
  expect(fs.readFileSync(join(top, 'cluster/global/pg_control')).readInt32LE(16)).toBe(stateShutDown)
  expect(fs.readdirSync(join(top, 'cluster/base'))).toHaveLength(1)
}, 60_000)

test('a first database has nothing of one that was cut off, and one that cannot be made leaves nothing', async () => {
  const cluster = join(folder(), 'cluster')
  fs.mkdirSync(`${cluster}.new`)
  fs.writeFileSync(join(`${cluster}.new`, 'left'), '')
  failing = { call: 'fsync', code: 'EIO' }
  try {
    await expect(ensureCluster(cluster)).rejects.toThrow('no database can be made')
  } finally {
    failing = undefined
  }
  expect(fs.readdirSync(join(cluster, '..'))).toEqual([])

  fs.mkdirSync(`${cluster}.new`)
  fs.writeFileSync(join(`${cluster}.new`, 'left'), '')
  await ensureCluster(cluster)
  expect(fs.existsSync(join(cluster, 'left'))).toBe(false)
})

test('64 MiB stay free: fewer refuse writes, and a copy that would leave fewer', async () => {
  const dataDir = folder()
  const driver = await openEmbedded({ dataDir })
  const bytes = bytesOf(join(dataDir, 'cluster'))
  const outcome = async (mebibytes: number, work: () => Promise<unknown>) => {
    free = mebibytes * mebibyte
    return work().then(
      () => 'done',
      error => error.cause?.message ?? error.message,
    )
  }
  const write = () => driver.query('create table if not exists t as select 1 as a', [])
  const copy = () => driver.copyTo!(join(folder(), 'copy'))
  try {
    expect([await outcome(63, write), await outcome(64, write)]).toEqual([
      'fewer than 64 MiB are free in DATA_DIR',
      'done',
    ])
    const size = Math.floor(bytes / mebibyte)
    expect(await outcome(63 + size, copy)).toMatch(
      /^not enough space for a copy of the database: it takes \d+ MB$/,
    )
    expect(await outcome(66 + size, copy)).toBe('done')
  } finally {
    free = undefined
    await driver.close()
  }
}, 60_000)

test('a burst of writes that fills the disk with log is over with the next round of maintenance', async () => {
  const dataDir = folder()
  const { driver, round } = await openWithMaintenance(dataDir)
  const disk = bytesOf(dataDir) + 144 * mebibyte
  free = () => disk - bytesOf(dataDir)
  const burst = `select pg_logical_emit_message(false, 'x', repeat('x', ${16 * mebibyte}))`
  const write = () => driver.query('insert into t values (1)', [])
  try {
    // A vacuum is due, too.
    await driver.query('create table t as select n from generate_series(1, 1000) n', [])
    while (free() >= 64 * mebibyte) await driver.query(burst, [])
    await expect(write()).rejects.toThrow('Service temporarily unavailable')

    await round()
    await write()
    expect(bytesOf(join(dataDir, 'cluster/pg_wal'))).toBeLessThanOrEqual(64 * mebibyte)
  } finally {
    free = undefined
    await driver.close()
  }
}, 60_000)

test('a vacuum writes, too: it waits until 64 MiB are free', async () => {
  const { driver, round } = await openWithMaintenance(folder())
  const dead = async () =>
    (await driver.query(`select n_dead_tup from pg_stat_user_tables where relname = 't'`, []))[0]![0]
  try {
    await driver.query('create table t as select n from generate_series(1, 1000) n', [])
    await driver.query('update t set n = 0', [])
    await driver.query('select pg_stat_force_next_flush()', [])
    free = 63 * mebibyte
    await round()
    expect(await dead()).toBe(1000)

    free = 64 * mebibyte
    await round()
    expect(await dead()).toBe(0)
  } finally {
    free = undefined
    await driver.close()
  }
}, 60_000)

describe('the result of a command', () => {
  test('is on disk before it has its name, and its name after that', async () => {
    const top = folder()
    const path = join(top, 'result')
    const seen = await during(() => writeOutput(path, output => output.write('x')))

    expect(seen).toEqual([
      expect.stringMatching(/^sync .*\/result\.[0-9a-f-]{36}\.part$/),
      `rename ${path}`,
      `sync ${top}`,
    ])
    expect(fs.statSync(path).mode & 0o777).toBe(0o600)
  })

  test('that is not finished leaves what was there, and nothing else', async () => {
    const top = folder()
    const path = join(top, 'result')
    fs.writeFileSync(path, 'before')
    const half = writeOutput(path, async output => {
      await output.write('half')
      throw new Error('enough')
    })

    await expect(half).rejects.toThrow('enough')
    expect([fs.readFileSync(path, 'utf8'), fs.readdirSync(top)]).toEqual(['before', ['result']])
  })

  test('never goes where a link leads, or into a file that was put in its way', async () => {
    const top = folder()
    const [path, victim] = [join(top, 'result'), join(top, 'victim')]
    fs.writeFileSync(victim, 'untouched')
    fs.symlinkSync(victim, path)
    // What could be guessed is in the way of nothing.
    for (const name of ['result.part', `result.${process.pid}`]) fs.symlinkSync(victim, join(top, name))
    let drafts: string[] = []
    await writeOutput(path, async output => {
      await output.write('x')
      drafts = fs.readdirSync(top).filter(name => /^result\.[0-9a-f-]{36}\.part$/.test(name))
    })

    expect(drafts).toHaveLength(1)
    expect(fs.readFileSync(victim, 'utf8')).toBe('untouched')
    expect(fs.lstatSync(path).isFile()).toBe(true)
    expect(fs.readFileSync(path, 'utf8')).toBe('x')
  })

  test('goes behind what a redirected output holds already, by each of its names', async () => {
    const file = join(folder(), 'file')
    const source = JSON.stringify(join(import.meta.dir, '../src/cli/atomic-file.ts'))
    const script = `import { writeOutput } from ${source}
      for (const name of ['-', '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1'])
        await writeOutput(name, output => output.write(name + '\\n'))`
    fs.writeFileSync(file, 'first\n')
    await Bun.$`${process.execPath} -e ${script} >> ${file}`

    expect(fs.readFileSync(file, 'utf8')).toBe('first\n-\n/dev/stdout\n/dev/fd/1\n/proc/self/fd/1\n')
  })

  test.each([
    [
      'a device',
      // By a link, so that a fault harms no device of the machine.
      async () => {
        const link = join(folder(), 'device')
        fs.symlinkSync('/dev/full', link)
        return link
      },
      (path: string) => fs.statSync(path).isCharacterDevice(),
    ],
    ['a folder', async () => folder(), (path: string) => fs.statSync(path).isDirectory()],
    [
      'a pipe',
      async () => {
        const pipe = join(folder(), 'pipe')
        await Bun.$`mkfifo ${pipe}`
        return pipe
      },
      (path: string) => fs.statSync(path).isFIFO(),
    ],
  ])('never takes the place of %s', async (_, make, isThere) => {
    const path = await make()
    const result = writeOutput(path, output => output.write('x'))

    await expect(result).rejects.toThrow(`${path} is not a file`)
    expect(isThere(path)).toBe(true)
  })

  test.each([
    ['a folder that is not there', (top: string) => join(top, 'nowhere/result'), 'there is no folder'],
    [
      'a folder that is a file',
      (top: string) => {
        fs.writeFileSync(join(top, 'file'), '')
        return join(top, 'file/result')
      },
      '.*/file is not a folder',
    ],
  ])('for %s is refused in words', async (_, target, reason) => {
    const path = target(folder())
    const result = writeOutput(path, output => output.write('x'))

    await expect(result).rejects.toThrow(new RegExp(`^${basename(path)} was not written: ${reason}`))
  })

  test.each([
    ['ENOSPC', () => 'the disk is full'],
    ['EACCES', (top: string) => `permission denied in ${top}`],
    ['EPERM', (top: string) => `permission denied in ${top}`],
    ['EROFS', (top: string) => `the file system of ${top} is read-only`],
  ])('that cannot be begun (%s) is refused in words', async (code, reason) => {
    const top = folder()
    failing = { call: 'open', code }
    const result = writeOutput(join(top, 'result'), output => output.write('x')).finally(() => {
      failing = undefined
    })

    await expect(result).rejects.toThrow(`result was not written: ${reason(top)}`)
    expect(fs.readdirSync(top)).toEqual([])
  })

  test('is not blamed for another file that is not there', async () => {
    const other = join(folder(), 'nowhere/other')
    const result = writeOutput(join(folder(), 'result'), async () => void fs.readFileSync(other))

    await expect(result).rejects.toThrow(/^ENOENT/)
  })
})

describe('a restore', () => {
  const top = folder()
  const file = join(top, 'backup')
  const within = async (dataDir: string, work: () => Promise<unknown>) => {
    const { DATA_DIR, DATABASE_URL } = process.env
    Object.assign(process.env, { DATA_DIR: dataDir })
    delete process.env.DATABASE_URL
    try {
      return await work()
    } finally {
      for (const [name, value] of Object.entries({ DATA_DIR, DATABASE_URL })) {
        if (value === undefined) delete process.env[name]
        else process.env[name] = value
      }
    }
  }
  const description = '🎉'.repeat(2000)
  let toast = ''
  const backup = async () => {
    if (fs.existsSync(file)) return
    const dataDir = join(top, 'data')
    const driver = await openEmbedded({ dataDir })
    await migrate(driver, [])
    const [ada, id] = [crypto.randomUUID(), crypto.randomUUID()]
    const make = [
      `insert into users (id, email, normalized_email, password_hash) values ('${ada}', 'a@b.c', 'a@b.c', 'x')`,
      `insert into user_versions (user_id, last_version) values ('${ada}', 1)`,
      `insert into tasks (id, user_id, title, description, version) values ('${id}', '${ada}', 'x', '${description}', 1)`,
    ]
    for (const statement of make) await driver.query(statement, [])
    const [[path] = []] = await driver.query(
      `select pg_relation_filepath(reltoastrelid) from pg_class where relname = 'tasks'`,
      [],
    )
    toast = String(path)
    await driver.close()
    await within(dataDir, () => backupCommand(file, {}))
  }

  test('is on disk before it is put in its place, and its name after that', async () => {
    await backup()
    const dataDir = join(top, 'other')
    const seen = await during(() => within(dataDir, () => restoreCommand(file, {})))
    const decided = seen.indexOf(`rename ${dataDir}/restore.ready`)
    const before = new Set(seen.slice(0, decided))
    const files = filesOf(join(dataDir, 'cluster'))
    // The engine, which syncs in its own way, came before.
    const unpacked = (path: string) => path.replace(dataDir, `${dataDir}/restore.new`)

    expect(files.length).toBeGreaterThan(100)
    expect(files.filter(path => !before.has(`sync ${unpacked(path)}`))).toEqual([])
    expect(modes.get(`${dataDir}/restore.ready`)).toBe(0o700)
    // Shut down: nothing is left to recover.
    expect(fs.readFileSync(join(dataDir, 'cluster/global/pg_control')).readInt32LE(16)).toBe(1)
    expect(seen.slice(decided + 1)).toEqual([
      `sync ${dataDir}`,
      `rename ${dataDir}/cluster`,
      `sync ${dataDir}/restore.ready`,
      `sync ${dataDir}`,
      `sync ${dataDir}`,
    ])
  }, 60_000)

  test('over a database sets that aside, for its owner alone, under a name of that second', async () => {
    await backup()
    const dataDir = join(top, 'over')
    await within(dataDir, () => restoreCommand(file, {}))
    fs.writeFileSync(join(dataDir, 'cluster/mark'), '')
    const seen = await during(() => within(dataDir, () => restoreCommand(file, { force: true })))

    const aside = fs.readdirSync(dataDir).find(name => name.startsWith('replaced-'))!
    expect(aside).toMatch(/^replaced-\d{4}-\d\d-\d\dT\d{6}Z$/)
    expect(fs.existsSync(join(dataDir, aside, 'cluster/mark'))).toBe(true)
    expect(fs.statSync(join(dataDir, aside)).mode & 0o777).toBe(0o700)
    expect(seen.slice(seen.indexOf(`rename ${dataDir}/restore.ready`))).toEqual([
      `rename ${dataDir}/restore.ready`,
      `sync ${dataDir}`,
      `rename ${dataDir}/restore.ready/replaced/cluster`,
      `sync ${dataDir}/restore.ready/replaced`,
      `rename ${dataDir}/cluster`,
      `sync ${dataDir}/restore.ready`,
      `sync ${dataDir}`,
      `rename ${dataDir}/${aside}`,
      `sync ${dataDir}`,
    ])
  }, 60_000)

  /** The backup with something in it changed. */
  const spoiled = async (spoil: (cluster: string) => void) => {
    await backup()
    const copy = folder()
    fs.cpSync(join(top, 'data/cluster'), join(copy, 'cluster'), { recursive: true })
    spoil(join(copy, 'cluster'))
    const bad = join(copy, 'bad.tar.gz')
    await create({ cwd: copy, gzip: true, file: bad }, ['cluster'])
    return bad
  }

  test.each(['/etc/passwd', 'PG_VERSION'])(
    'takes no links, wherever they lead (%s)',
    async target => {
      const bad = await spoiled(cluster => fs.symlinkSync(target, join(cluster, 'link')))
      const dataDir = join(folder(), 'data')

      await expect(within(dataDir, () => restoreCommand(bad, {}))).rejects.toThrow('is not a backup')
      expect(fs.readdirSync(dataDir)).toEqual(['lock'])
    },
    60_000,
  )

  const isRoot = process.getuid?.() === 0
  if (!isRoot) process.stderr.write('\nNOT RUN: the test of files of another owner needs root.\n')
  test.skipIf(!isRoot)('belongs to the user who restores, whatever the backup says', async () => {
    const foreign = await spoiled(cluster => fs.chownSync(join(cluster, 'PG_VERSION'), 54_321, 54_321))
    const target = folder()
    await unpack(foreign, target)

    expect(fs.statSync(join(target, 'cluster/PG_VERSION'))).toMatchObject({ uid: 0, gid: 0 })
  })

  test('notices a value that is damaged, wherever it is stored', async () => {
    const bad = await spoiled(cluster => {
      const path = join(cluster, toast)
      const bytes = fs.readFileSync(path)
      expect(bytes.includes('🎉')).toBe(true)
      bytes[bytes.indexOf('🎉') + 400]! ^= 0xff
      fs.writeFileSync(path, bytes)
    })
    const dataDir = join(folder(), 'data')

    await expect(within(dataDir, () => restoreCommand(bad, {}))).rejects.toThrow('is damaged: invalid page')
    expect(fs.readdirSync(dataDir)).toEqual(['lock'])
  }, 60_000)
})
