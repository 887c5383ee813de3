import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import type { BackupSettings } from '../config/config.ts'
import type { Log } from '../telemetry/log.ts'
import { runningProgram } from './running-program.ts'

/** What `/health/ready` and the metrics say. */
export interface BackupStats {
  /** When the newest good backup was begun. */
  lastGoodAt: Date | undefined
  outcomes: { ok: number; failed: number }
}

/** The time in a name is that of the backup, wherever the file was copied to. */
const namePattern = /^todo-api-(\d{4}-\d\d-\d\dT)(\d\d)(\d\d)(\d\d)(Z)\.tar\.gz$/
const draftPattern = /^todo-api-[\dTZ-]+\.tar\.gz\.[\da-f-]{36}\.part$/

const nameOf = (time: Date) => `todo-api-${time.toISOString().slice(0, 19).replaceAll(':', '')}Z.tar.gz`

/** Files of a folder, oldest first; none if it cannot be read: then the next backup fails and says why. */
function list(folder: string, pattern: RegExp): string[] {
  try {
    const names = readdirSync(folder).filter(name => pattern.test(name))
    return names.sort()
  } catch {
    return []
  }
}

/** The backups in a folder, but for those of the future, made while the clock was wrong. */
function listBackups(folder: string): string[] {
  const now = nameOf(new Date())
  return list(folder, namePattern).filter(name => name <= now)
}

/** When the newest backup of a folder was begun. */
export function newestBackup({ dir }: BackupSettings): Date | undefined {
  const name = listBackups(dir).at(-1)
  return name ? new Date(name.replace(namePattern, '$1$2:$3:$4$5')) : undefined
}

const firstAfterSeconds = 10
const againAfterSeconds = 60

/**
 * Makes a backup each `everySeconds`, counted from the newest in the folder, so that a restart delays none. A process of
 * its own makes it and reads it again (`todo-api backup --verify`); only then the oldest goes. A failure is logged, and
 * tried again.
 */
export function startBackups(settings: BackupSettings, log: Log) {
  const { everySeconds, keep, dir } = settings
  const stats: BackupStats = { lastGoodAt: newestBackup(settings), outcomes: { ok: 0, failed: 0 } }
  let child: Bun.Subprocess<'ignore', 'ignore', 'pipe'> | undefined
  let timer: Timer | undefined
  let isStopping = false

  function plan(seconds: number) {
    if (!isStopping) timer = setTimeout(run, seconds * 1000).unref()
  }

  async function run() {
    // Whole seconds, as in the name.
    const begun = new Date(Math.floor(Date.now() / 1000) * 1000)
    const startedAt = performance.now()
    const file = join(dir, nameOf(begun))
    try {
      mkdirSync(dir, { recursive: true, mode: 0o700 })
      // Of a process that was killed.
      remove(list(dir, draftPattern))
      await makeBackup(file)
      stats.lastGoodAt = begun
      stats.outcomes.ok++
      // Not by the clock, which may have been set meanwhile.
      const seconds = Math.round(performance.now() - startedAt) / 1000
      log.info('backup made', { file, bytes: statSync(file).size, seconds })
      remove(listBackups(dir).slice(0, -keep))
      plan(Math.max(0, everySeconds - seconds))
    } catch (error) {
      if (isStopping) return
      stats.outcomes.failed++
      const seconds = Math.min(everySeconds, againAfterSeconds)
      log.error('backup failed', { reason: (error as Error).message, again_in_seconds: seconds })
      plan(seconds)
    }
  }

  /** Removes what it can. If a failure here counted as one of the backup, there would be another backup each minute. */
  function remove(names: readonly string[]) {
    for (const name of names) {
      const file = join(dir, name)
      try {
        rmSync(file, { force: true })
      } catch (error) {
        log.warn('old backup cannot be removed', { file, reason: (error as Error).message })
      }
    }
  }

  /** Rejects with what the process said last. */
  async function makeBackup(file: string) {
    child = Bun.spawn([...runningProgram, 'backup', '--verify', file], {
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'pipe',
    })
    lowerPriority(child.pid)
    const said = await new Response(child.stderr).text()
    if ((await child.exited) !== 0) {
      throw new Error(said.trim().split('\n').at(-1) || `ended by ${child.signalCode ?? child.exitCode}`)
    }
  }

  const due = stats.lastGoodAt ? (stats.lastGoodAt.getTime() - Date.now()) / 1000 + everySeconds : 0
  plan(Math.max(due, Math.min(firstAfterSeconds, everySeconds)))

  return {
    stats: () => stats,
    /** Ends a backup that is under way, which removes what it has made. */
    async stop() {
      isStopping = true
      clearTimeout(timer)
      child?.kill()
      await child?.exited
    },
  }
}

/** Requests come first. When memory runs out, Linux ends the backup and not the service, which is larger. */
function lowerPriority(pid: number) {
  const ways = [
    () => setPriority(pid, constants.priority.PRIORITY_LOW),
    () => writeFileSync(`/proc/${pid}/oom_score_adj`, '1000'),
  ]
  for (const lower of ways) {
    try {
      lower()
    } catch {
      // It has ended already, a filter of system calls forbids it, or it is not Linux.
    }
  }
}
