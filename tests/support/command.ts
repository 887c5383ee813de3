import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Env } from '../../src/config/config.ts'
import { executablePath } from './executable.ts'
import { type DatabaseKind, testSettings } from './harness.ts'
import { outcomeOf } from './outcome.ts'
import { privateDatabase } from './template.ts'

/** Runs a command of the built executable to its end, with nothing in its environment but `PATH` and `env`. */
export async function runCommand(
  args: string[],
  { env = {}, stdin = '', cwd = tmpdir() }: { env?: Env; stdin?: string; cwd?: string } = {},
) {
  const command = [await executablePath(), ...args]
  return outcomeOf(
    Bun.spawn(command, {
      cwd,
      env: { PATH: process.env.PATH, ...env },
      stdin: Buffer.from(stdin),
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: 60_000,
    }),
  )
}

/** A database of one kind, without a service, and the settings that name it. */
export interface Place {
  env: Env
  /** A folder for the test's files; the embedded database is in `data` there. */
  folder: string
  remove(): Promise<void>
}

/** Makes a place for commands to work on. */
export async function newPlace(kind: DatabaseKind, { direct = false } = {}): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-place-'))
  const database = kind === 'postgres' ? await privateDatabase() : undefined
  const env: Env = {
    ...testSettings,
    DATA_DIR: join(folder, 'data'),
    ...(database && { DATABASE_URL: direct ? database.directUrl : database.url }),
  }
  return {
    env,
    folder,
    async remove() {
      await database?.drop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
