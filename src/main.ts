import { existsSync, readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { Command, CommanderError } from 'commander'
import { version } from '../package.json'
import { type Config, ConfigError, type Env, parseConfig } from './config.ts'
import { openDriver } from './db/client.ts'
import { databaseError } from './db/constraint.ts'
import { migrate, pendingMigrations } from './db/migrate.ts'
import { createLog, type Log } from './log.ts'
import { serve } from './serve.ts'

const exitCode = { ok: 0, failure: 1, usage: 2 }

const program = new Command('todo-api')
  .description('A complete to-do backend in one file: REST API, accounts, embedded PostgreSQL.')
  .helpOption('-h, --help', 'show this help')
  .helpCommand('help [command]', 'show help for a command')
  .addHelpText('after', '\nSettings come from the environment or from .env; the README lists them.')
  .exitOverride()

program
  .command('serve', { isDefault: true })
  .description('run the service (this is what happens without a command)')
  .action(async () => {
    const config = readConfig()
    const log = logTo(config)
    const service = await serve(config, log)

    let signals = 0
    const onSignal = async (signal: string) => {
      // Whoever asks twice does not want to wait.
      if (++signals > 1) process.exit(exitCode.failure)
      await service.stop(signal)
      log.flush()
      process.exit(exitCode.ok)
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)

    try {
      await service.migrated
    } catch (error) {
      await service.stop('the database cannot be brought up to date')
      log.flush()
      throw error
    }
  })

program
  .command('migrate')
  .description('bring the database up to date and exit')
  .option('--status', 'only list what is pending; exit code 1 when something is')
  .action(async ({ status }: { status?: boolean }) => {
    const driver = await openDriver(readConfig().database)
    try {
      if (status) {
        const pending = await pendingMigrations(driver)
        for (const tag of pending) say(`pending ${tag}`)
        say(pending.length === 0 ? 'up to date' : `${pending.length} pending`)
        process.exitCode = pending.length === 0 ? exitCode.ok : exitCode.failure
      } else {
        const applied = await migrate(driver)
        for (const tag of applied) say(`applied ${tag}`)
        say('up to date')
      }
    } finally {
      await driver.close()
    }
  })

program
  .command('healthcheck')
  .description('ask the service on this machine whether it is ready; exit code 0 or 1')
  .action(async () => {
    const { host, port } = readConfig()
    const everywhere: Record<string, string> = { '0.0.0.0': '127.0.0.1', '::': '[::1]' }
    const response = await fetch(`http://${everywhere[host] ?? host}:${port}/health/ready`, {
      signal: AbortSignal.timeout(3000),
    })
    say(await response.text())
    if (!response.ok) process.exitCode = exitCode.failure
  })

program
  .command('openapi')
  .description('print the OpenAPI document; needs no database')
  .action(async () => {
    const { openApiDocument } = await import('./openapi.ts')
    process.stdout.write(`${JSON.stringify(await openApiDocument(), null, 2)}\n`)
  })

program
  .command('version')
  .description('print the version')
  .action(() => void process.stdout.write(`${version}\n`))

/** Messages for people go to stderr; stdout is for results. */
function say(message: string) {
  process.stderr.write(`${message}\n`)
}

/** The environment, and below it the `.env` of the folder we were started in. */
function readConfig(): Config {
  const file = existsSync('.env') ? parseEnv(readFileSync('.env', 'utf8')) : {}
  return parseConfig({ ...file, ...process.env } as Env)
}

function logTo({ logLevel }: Config): Log {
  const stdout = Bun.stdout.writer()
  return createLog({
    level: logLevel,
    pretty: process.stdout.isTTY === true,
    write: lines => {
      stdout.write(lines)
      stdout.flush()
    },
  })
}

/** What to tell a person about a failure that ends the program: one line, nothing that a setting holds. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown failure'
  if ('code' in error && error.code === 'EADDRINUSE') return 'HOST and PORT are in use by another process'
  if (databaseError(error) && error.name !== 'MigrationError') return `the database says: ${error.message}`
  return error.message
}

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? exitCode.ok : exitCode.usage)
  say(explain(error))
  process.exit(error instanceof ConfigError ? exitCode.usage : exitCode.failure)
}
