import { afterAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { answerCommands, connectToService, newCopy } from '../src/cli/control.ts'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { createLog } from '../src/telemetry/log.ts'

const root = mkdtempSync(join(tmpdir(), 'todo-api-control-'))
const driver = await openEmbedded({ dataDir: join(root, 'data') })
afterAll(async () => {
  await driver.close()
  rmSync(root, { recursive: true })
})

/** Answers commands in a folder of its own, until the end of `work`. */
async function answering(folder: string, work: (folder: string) => Promise<void> | void) {
  mkdirSync(folder, { recursive: true })
  const log = createLog({ level: 'info', pretty: false, write: () => {} })
  const control = answerCommands(folder, driver, log)
  try {
    await work(folder)
  } finally {
    await control.stop()
  }
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

    await answering(folder, () => {})
    expect([old, recent, other].map(existsSync)).toEqual([false, true, true])
  })

  test('leaves no socket behind', async () => {
    const folder = join(root, 'socket')
    await answering(folder, async () => {
      expect(readdirSync(folder)).toEqual(['control'])
      expect([...(await (await connectToService(folder))!.query('select 1', []))]).toEqual([[1]])
    })

    expect(readdirSync(folder)).toEqual([])
    expect(await connectToService(folder)).toBeUndefined()
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
    })
  })
})
