import { Command, CommanderError } from 'commander'
import { version } from '../package.json'
import { print, say, UsageError } from './cli/terminal.ts'
import { ConfigError } from './config/config.ts'
import { databaseError } from './db/pg-error.ts'
import { AppError } from './lib/errors.ts'

const exitCode = { ok: 0, failure: 1, usage: 2 }

const program = new Command('todo-api')
  .description('A complete to-do backend in one file: REST API, accounts, embedded PostgreSQL.')
  .helpOption('-h, --help', 'show this help')
  .helpCommand('help [command]', 'show help for a command')
  .addHelpText('after', '\nSettings come from the environment or from .env; `todo-api config` lists them.')
  .version(version, '-v, --version', 'print the version')
  .exitOverride()

program
  .command('serve', { isDefault: true })
  .description('run the service (this is what happens without a command)')
  .action(async () => {
    const { serveCommand } = await import('./cli/serve.ts')
    await serveCommand()
  })

program
  .command('worker', { hidden: true })
  .description('one of several processes that `serve` starts when WORKERS is more than 1')
  .action(async () => {
    if (!process.send) throw new UsageError('`worker` is for `serve` to start')
    const { workerCommand } = await import('./cli/serve.ts')
    await workerCommand()
  })

program
  .command('migrate')
  .description('bring the database up to date and exit')
  .option('--status', 'only list what is pending; exit code 1 when something is')
  .action(async (options: { status?: boolean }) => {
    const { migrateCommand } = await import('./cli/migrate.ts')
    finish(await migrateCommand(options))
  })

program
  .command('healthcheck')
  .description('ask the service on this machine whether it is ready; exit code 0 or 1')
  .action(async () => {
    const { healthcheckCommand } = await import('./cli/healthcheck.ts')
    finish(await healthcheckCommand())
  })

program
  .command('openapi')
  .description('print the OpenAPI document; needs no database')
  .action(async () => {
    const { openApiDocument } = await import('./server/openapi.ts')
    await print(`${JSON.stringify(await openApiDocument(), null, 2)}\n`)
  })

program
  .command('import')
  .description('take over the database of the first service, or what `export` wrote')
  .argument('[file]', 'what `export` wrote; - is stdin')
  .option(
    '--from <url>',
    'the database of the first service; better set FROM_DATABASE_URL, which nobody sees',
  )
  .addHelpText(
    'after',
    `
Rows that are here already stay unchanged, so it may be run again. Rows that cannot come in are reported, one line
each, and the exit code is 1 then.

Examples:
  FROM_DATABASE_URL_FILE=/run/secrets/old todo-api import    the first service's users and tasks
  todo-api import --from postgres:///todo?host=/run/postgresql
  todo-api import todo.ndjson                                what \`todo-api export todo.ndjson\` wrote`,
  )
  .action(async (file: string | undefined, options: { from?: string }) => {
    const { importCommand } = await import('./cli/transfer/import.ts')
    finish(await importCommand(file, options))
  })

program
  .command('export')
  .description('write all users and tasks, or those of one person, as lines of JSON')
  .argument('[file]', 'where to; without it, or with -, stdout', '-')
  .option('--user <email>', 'only what belongs to this person; an id will do, too')
  .addHelpText(
    'after',
    `
The file holds password hashes: keep it as you keep the database. \`import\` reads it on any database, so this is the
road from the embedded database to PostgreSQL and back. Sessions stay behind: people sign in again.

Examples:
  todo-api export todo.ndjson
  todo-api export --user ada@example.com ada.ndjson
  todo-api export | DATABASE_URL=postgres://… todo-api import -`,
  )
  .action(async (file: string, options: { user?: string }) => {
    const { exportCommand } = await import('./cli/transfer/export.ts')
    await exportCommand(file, options)
  })

program
  .command('backup')
  .description('pack the embedded database into one file, also while the service runs')
  .argument('<file>', 'such as todo.tar.gz; - is stdout')
  .addHelpText(
    'after',
    `
The file holds all that was answered before the command began, and the secret that the service made for itself.
It needs space for a copy of the database in DATA_DIR while it works. For PostgreSQL, use pg_dump.

Examples:
  todo-api backup /backups/todo-$(date +%F).tar.gz
  docker exec todo-api todo-api backup - > todo.tar.gz`,
  )
  .action(async (file: string) => {
    const { backupCommand } = await import('./cli/backup/backup.ts')
    await backupCommand(file)
  })

program
  .command('restore')
  .description('put a backup in the place of the embedded database; the service must be stopped')
  .argument('<file>', 'what `backup` wrote; - is stdin')
  .option('--force', 'set the database that is there aside, and take the backup instead')
  .addHelpText(
    'after',
    `
The backup is unpacked, opened and read through before anything is touched. With --force, what was there is kept in
DATA_DIR under a name that the command prints.

Examples:
  DATA_DIR=/new todo-api restore /backups/todo-2026-11-23.tar.gz
  todo-api restore --force todo.tar.gz`,
  )
  .action(async (file: string, options: { force?: boolean }) => {
    const { restoreCommand } = await import('./cli/backup/restore.ts')
    await restoreCommand(file, options)
  })

program
  .command('reset-sync')
  .description('let every client sync from the beginning, after a restore or a fail-over that lost changes')
  .addHelpText(
    'after',
    `
For a database that has lost changes which clients have seen: after pg_restore, after a standby was promoted without the
last changes, after the import of an old export. Old cursors are answered with 410 then, and old ETags fit nothing.
The service may run meanwhile, and running it twice does no harm. \`restore\` does what is needed by itself.

Example:
  todo-api reset-sync`,
  )
  .action(async () => {
    const { resetSyncCommand } = await import('./cli/reset-sync.ts')
    await resetSyncCommand()
  })

program
  .command('config')
  .description('every setting in force and where it comes from; secrets are hidden')
  .option('--json', 'one line of JSON each')
  .addHelpText('after', '\nExamples:\n  todo-api config\n  todo-api config --json | jq -r .name')
  .action(async (options: { json?: boolean }) => {
    const { configCommand } = await import('./cli/show-config.ts')
    await configCommand(options)
  })

program
  .command('doctor')
  .description('check settings, data folder, database, migrations and clock, and say what to do')
  .addHelpText(
    'after',
    '\nChanges nothing. Exit code 1 when a line begins with fail.\n\nExample:\n  todo-api doctor',
  )
  .action(async () => {
    const { doctorCommand } = await import('./cli/doctor.ts')
    finish(await doctorCommand())
  })

const user = program
  .command('user')
  .description('look after accounts: list, create, reset-password, disable, enable, delete')
  .helpCommand(false)
  .addHelpText(
    'after',
    `
USER is an e-mail address, in any case, or an id. Passwords are typed without an echo, or come as the first line of
stdin; they are never an argument. A running service takes notice within a second.

Examples:
  todo-api user list
  todo-api user create ada@example.com
  openssl rand -base64 18 | tee /dev/stderr | todo-api user reset-password ada@example.com
  todo-api user disable ada@example.com
  todo-api user list --json | jq -r 'select(.disabled_at).email'`,
  )

user
  .command('list')
  .description('every account: a table at a terminal, else lines of JSON')
  .option('--json', 'lines of JSON at a terminal, too')
  .action(async (options: { json?: boolean }) => (await users()).listUsers(options))

user
  .command('create')
  .description('make an account; prints its id')
  .argument('<email>')
  .action(async (email: string) => (await users()).createUser(email))

user
  .command('reset-password')
  .description('set a new password and end the sessions of the account')
  .argument('<user>')
  .action(async (who: string) => (await users()).resetPassword(who))

user
  .command('disable')
  .description('let nobody sign in to the account, and end its sessions; its tasks stay')
  .argument('<user>')
  .action(async (who: string) => (await users()).disableUser(who))

user
  .command('enable')
  .description('undo `disable`')
  .argument('<user>')
  .action(async (who: string) => (await users()).enableUser(who))

user
  .command('delete')
  .description('delete the account, its sessions and its tasks for good')
  .argument('<user>')
  .option('--yes', 'do not ask')
  .action(async (who: string, options: { yes?: boolean }) => (await users()).deleteUser(who, options))

program
  .command('version')
  .description('print the version')
  .option('--licenses', 'print the licences of todo-api and of all software inside it')
  .action(async (options: { licenses?: boolean }) => {
    const { licenses } = await import('./cli/licenses.ts')
    await print(options.licenses ? await licenses() : `${version}\n`)
  })

const users = () => import('./cli/user.ts')

/** Ends a command whose work is done but not all is well. */
function finish(isWell: boolean) {
  process.exitCode = isWell ? exitCode.ok : exitCode.failure
}

/** What to tell a person about a failure that ends the program: one line, nothing that a setting holds. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown failure'
  if (error instanceof AppError && error.code === 'unavailable') {
    return `the database cannot be reached${error.cause instanceof Error ? `: ${error.cause.message}` : ''}`
  }
  // Drizzle's own message holds the statement and its values.
  if ('query' in error && error.cause) return explain(error.cause)
  if (databaseError(error) && error.name !== 'MigrationError') return `the database says: ${error.message}`
  return error.message
}

/** Commander would take a word that it does not know for an argument of `serve`. */
function refuseUnknownCommand([word]: string[]) {
  const isKnown = program.commands.some(command => command.name() === word)
  if (word === undefined || word.startsWith('-') || word === 'help' || isKnown) return
  throw new UsageError(`there is no command ${word}; \`todo-api help\` shows them all`)
}

try {
  refuseUnknownCommand(process.argv.slice(2))
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? exitCode.ok : exitCode.usage)
  // Whoever read our output has gone, and needs no explanation.
  if (!(error instanceof Error && 'code' in error && error.code === 'EPIPE')) say(explain(error))
  process.exit(
    error instanceof ConfigError || error instanceof UsageError ? exitCode.usage : exitCode.failure,
  )
}
