import { afterAll, describe, expect, spyOn, test } from 'bun:test'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { backupCommand } from '../src/cli/backup/backup.ts'
import * as readThrough from '../src/cli/backup/read-through.ts'
import { answerCommands, claimCopy, connectToService, newCopy } from '../src/cli/control-socket.ts'
import { failureOf } from '../src/cli/failure.ts'
import { exportCommand } from '../src/cli/transfer/export.ts'
import { lockFile } from '../src/config/data-dir.ts'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { AppError } from '../src/lib/errors.ts'
import { createLog } from '../src/telemetry/log.ts'
import { until } from './support/until.ts'

const root = mkdtempSync(join(tmpdir(), 'todo-api-control-'))
const driver = await openEmbedded({ dataDir: join(root, 'data') })
afterAll(async () => {
  await driver.close()
  rmSync(root, { recursive: true })
})

/** Answers commands in a folder of its own, until the end of `work`; what it logs. */
async function answering(folder: string, work: (folder: string) => Promise<void> | void, db = driver) {
  mkdirSync(folder, { recursive: true })
  const lines: string[] = []
  const log = createLog({ level: 'info', pretty: false, write: text => void lines.push(text) })
  const control = answerCommands(folder, db, log)
  try {
    await work(folder)
  } finally {
    await control.stop()
  }
  log.flush()
  return lines.join('')
}

describe('a service that answers commands', () => {
  test('removes copies that commands left a day ago, and nothing else', async () => {
    const folder = join(root, 'copies')
    const left = (hours: number, path = newCopy(folder)) => {
      mkdirSync(join(path, 'cluster'), { recursive: true })
      const time = new Date(Date.now() - hours * 3_600_000)
      utimesSync(path, time, time)
      return path
    }
    const [old, recent, other] = [left(25), left(23), left(25, join(folder, 'copy-of-mine'))]
    // Some file systems have no locks that end with their process.
    const locked = left(25)
    using _ = claimCopy(locked)
    utimesSync(locked, new Date(), new Date(Date.now() - 25 * 3_600_000))

    // Named in a warning: it leads nowhere, so that it has no age.
    const ageless = newCopy(folder)
    symlinkSync('nowhere', ageless)

    const log = await answering(folder, async () => expect(await connectToService(folder)).toBeDefined())
    expect([old, recent, other, locked].map(existsSync)).toEqual([false, true, true, false])
    expect(JSON.parse(log)).toMatchObject({
      level: 'warn',
      msg: 'abandoned copy cannot be removed',
      path: ageless,
    })
  })

  test('removes the copies of commands that were killed before it makes another, and no other ones', async () => {
    await answering(join(root, 'left'), async folder => {
      const [living, killed, next] = [newCopy(folder), newCopy(folder), newCopy(folder)]
      for (const path of [living, killed]) mkdirSync(path)
      using _ = claimCopy(living)
      const program = `
        import { claimCopy } from ${JSON.stringify(join(import.meta.dir, '../src/cli/control-socket.ts'))}
        const lock = claimCopy(${JSON.stringify(killed)})
        process.kill(process.pid, 'SIGKILL', lock)`
      await Bun.spawn([process.execPath, '-e', program], { stdio: ['ignore', 'ignore', 'inherit'] }).exited
      expect(existsSync(killed)).toBe(true)

      await (await connectToService(folder))!.copyTo!(join(next, 'cluster'))

      expect([living, killed, next].map(existsSync)).toEqual([true, false, true])
    })
  }, 30_000)

  test.each([
    ['an export', 1, () => exportCommand(join(root, 'export.ndjson'), {})],
    ['a verified backup', 2, () => backupCommand(join(root, 'backup.tar.gz'), { verify: true })],
  ])(
    'sees that the copies of %s are still read',
    async (_, copies, command) => {
      const seen: unknown[] = []
      const reading = spyOn(readThrough, 'withUnpacked').mockImplementation(async folder => {
        const lock = await Promise.try(() => lockFile(folder, 'owner', 0)).catch(({ message }) => message)
        seen.push(lock)
        return { users: 0, tasks: 0 } as never
      })
      const dataDir = join(root, 'data')
      process.env.DATA_DIR = dataDir
      try {
        await answering(dataDir, command)
      } finally {
        delete process.env.DATA_DIR
        reading.mockRestore()
      }

      expect(seen).toEqual(Array(copies).fill(expect.stringContaining('is in use')))
    },
    30_000,
  )

  test('has a socket for its owner alone, and leaves none behind', async () => {
    const folder = join(root, 'socket')
    const mask = process.umask(0o022)
    await answering(folder, async () => {
      expect(readdirSync(folder)).toEqual(['control'])
      expect(statSync(join(folder, 'control')).mode & 0o777).toBe(0o600)
      expect(process.umask(mask)).toBe(0o022)
      expect([...(await (await connectToService(folder))!.query('select 1', []))]).toEqual([[1]])
    })

    expect(readdirSync(folder)).toEqual([])
    expect(await connectToService(folder)).toBeUndefined()
  })

  test('replaces the socket of one that was killed', async () => {
    const folder = join(root, 'killed')
    mkdirSync(folder)
    writeFileSync(join(folder, 'control'), '')

    expect(await connectToService(folder)).toBeUndefined()
    await answering(folder, async () => expect(await connectToService(folder)).toBeDefined())
  })

  test.each([
    ['a file system without sockets', () => '/proc'],
    [
      'a folder in its place',
      () => {
        mkdirSync(join(root, 'occupied/control'), { recursive: true })
        return join(root, 'occupied')
      },
    ],
  ])('runs without a socket where none can be made (%s), and says so', async (_, make) => {
    const folder = make()
    const log = await answering(folder, async () => expect(await connectToService(folder)).toBeUndefined())

    expect(JSON.parse(log)).toMatchObject({
      level: 'warn',
      msg: 'commands cannot reach this service',
      socket: join(folder, 'control'),
    })
  })

  test('waits for no command that does not come to its end when it stops', async () => {
    const path = join(root, 'unfinished')
    const begun = Promise.withResolvers<void>()
    await answering(path, async folder => {
      const socket = createConnection(join(folder, 'control'))
      socket.on('error', begun.reject).on('data', () => begun.resolve())
      // The server answers `Expect` when it has begun to read the body, which does not come.
      socket.write('POST /greet HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n')
      await begun.promise
    })

    expect(existsSync(join(path, 'control'))).toBe(false)
  })

  test('waits for no command when it stops', async () => {
    const path = join(root, 'stopped')
    const asked = Promise.withResolvers<void>()
    const silent = {
      ...driver,
      query() {
        asked.resolve()
        return new Promise<never>(() => {})
      },
    }
    let answer: Promise<unknown> | undefined
    const work = async (folder: string) => {
      answer = (await connectToService(folder))!.query('select 1', []).catch(error => error)
      await asked.promise
    }
    await answering(path, work, silent)

    expect(existsSync(join(path, 'control'))).toBe(false)
    expect(await answer).toBeInstanceOf(Error)
  })

  test('copies the database, and removes the copy of a command that has ended meanwhile', async () => {
    await answering(join(root, 'copied'), async folder => {
      const [kept, left] = [newCopy(folder), newCopy(folder)]
      await (await connectToService(folder))!.copyTo!(join(kept, 'cluster'))
      expect(existsSync(join(kept, 'cluster/PG_VERSION'))).toBe(true)

      const body = JSON.stringify([basename(left)])
      const socket = createConnection(join(folder, 'control'))
      socket.write(`POST /copy HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
      await until(() => existsSync(left))
      socket.destroy()
      await until(() => !existsSync(left))
      expect(existsSync(kept)).toBe(true)
    })
  })

  test('copies into its own folder alone', async () => {
    await answering(join(root, 'own'), async folder => {
      const service = (await connectToService(folder))!

      await expect(service.copyTo!(join(root, 'elsewhere', 'cluster'))).rejects.toThrow(
        'not the name of a copy',
      )
      expect(readdirSync(folder)).toEqual(['control'])
    })
  })

  test('keeps what needs the database for itself to itself, and passes on why a statement failed', async () => {
    await answering(join(root, 'refused'), async folder => {
      const service = (await connectToService(folder))!
      const refusal = 'a service runs on this database; stop it first'

      await expect(service.transaction(async () => {})).rejects.toThrow(refusal)
      await expect(service.dedicatedConnection(async () => {})).rejects.toThrow(refusal)
      await expect(service.query('select * from missing', [])).rejects.toMatchObject({ code: '42P01' })
      const { columns } = await service.query('select 1 as a, 2 as b', [], { columns: true })
      expect(columns?.map(({ name }) => name)).toEqual(['a', 'b'])
    })
  })

  test('passes on that the database is closed, and why nothing was answered', async () => {
    const closed = await openEmbedded({ dataDir: join(root, 'closed') })
    const work = async (folder: string) => {
      const service = (await connectToService(folder))!
      await closed.close()
      const away = await service.query('select 1', []).catch(error => error)
      expect([away, away.code]).toEqual([expect.any(AppError), 'unavailable'])
      expect(failureOf(away).message).toBe('the database is unavailable: the embedded database is closed')
    }
    await answering(join(root, 'away'), work, closed)
  })
})
