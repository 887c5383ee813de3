import { availableParallelism } from 'node:os'
import { type Config, ConfigError } from '../../config/config.ts'
import { newestBackup } from '../../server/backups.ts'
import { connectToService } from '../control-socket.ts'
import { isAbsent, openDatabase } from '../open-database.ts'
import { readConfig } from '../read-config.ts'
import { print } from '../terminal.ts'
import { examineDataDir, examineWriting } from './data-folder.ts'
import { examineDatabase } from './database.ts'
import { diagnose } from './diagnose.ts'
import { type Finding, fail, ok, type Tell, warn } from './finding.ts'

/** Looks at everything that the service needs, one line each, and changes nothing. Returns whether nothing failed. */
export async function doctorCommand(_: string, { json = false }: { json?: boolean }): Promise<boolean> {
  const findings: Finding[] = []
  await examine((check, about, { verdict, cure }) => void findings.push({ verdict, check, about, cure }))
  const format = json ? JSON.stringify : process.stdout.isTTY ? formatForTerminal : formatLine
  await print(findings.map(finding => `${format(finding)}\n`).join(''))
  return !findings.some(({ verdict }) => verdict === 'fail')
}

const formatLine = ({ verdict, check, about, cure }: Finding) =>
  `${verdict.padEnd(4)}  ${check.padEnd(11)}  ${about}${cure ? `; ${cure}` : ''}`

const marks = { ok: '\x1b[32m✓', warn: '\x1b[33m!', fail: '\x1b[31m✗' }

/** What to do stands in a line of its own. NO_COLOR and a terminal without colours leave the marks. */
function formatForTerminal({ verdict, check, about, cure }: Finding): string {
  const mark = `${marks[verdict]}\x1b[0m`
  const text = `${mark} ${check.padEnd(11)}  ${about}${cure ? `\n               → ${cure}` : ''}`
  return process.stdout.hasColors() ? text : Bun.stripANSI(text)
}

async function examine(tell: Tell): Promise<void> {
  const config = examineSettings(tell)
  if (!config) return
  const isUsable = examineDataDir(config, tell)
  if (!isUsable && config.database.kind === 'embedded') return
  examineBackups(config, tell)
  try {
    await using driver = await openQuietly(config, tell)
    if (driver) await examineDatabase(driver, config, tell)
  } catch (error) {
    const { about, cure } = diagnose(error)
    tell('database', about, fail(cure))
  }
}

function examineSettings(tell: Tell): Config | undefined {
  try {
    const config = readConfig()
    tell('settings', 'valid; `todo-api config` lists them', ok)
    for (const { name, nearest } of config.misspelled)
      tell('settings', `there is no ${name}`, warn(`if ${nearest} is meant, correct the name`))
    examineWorkers(config, tell)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const mistake of error.mistakes)
      tell('settings', mistake, fail('`todo-api config` shows its source'))
    return undefined
  }
}

function examineWorkers({ workers }: Config, tell: Tell): void {
  if (workers === 1) return
  const cores = availableParallelism()
  const about = `${workers} on ${cores} ${cores === 1 ? 'core' : 'cores'}`
  tell('workers', about, workers <= cores ? ok : warn('lower WORKERS: more than cores gain nothing'))
}

/** Backups that the service makes: the newest must be younger than two periods. */
function examineBackups(config: Config, tell: Tell): void {
  const { backups } = config
  if (!backups || !examineWriting('backups', backups.dir, 'BACKUP_DIR', tell)) return
  const last = newestBackup(backups)
  const about = last
    ? `the newest in ${backups.dir} is of ${last.toISOString()}`
    : `none in ${backups.dir} yet`
  const isLate = last ? Date.now() - last.getTime() > 2 * backups.everySeconds * 1000 : !isAbsent(config)
  const cure = 'start the service and wait for its backup, or look for `backup failed` in its log'
  tell('backups', about, isLate ? warn(cure) : ok)
}

/** The database, unless looking at it would make it. */
async function openQuietly(config: Config, tell: Tell) {
  const { database } = config
  if (database.kind === 'embedded') {
    if (isAbsent(config)) {
      tell('database', 'embedded, made at the first start', ok)
      return undefined
    }
    const runs = (await connectToService(database.dataDir)) !== undefined
    tell('service', `${runs ? 'it' : 'none'} runs on this data folder`, ok)
  }
  return openDatabase(config)
}
