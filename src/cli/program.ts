import { Command, CommanderError } from 'commander'
import { version } from '../../package.json'
import { print, UsageError } from './terminal.ts'

/** For a command that returns whether all is well. */
function setExitCode(isWell: boolean): void {
  if (!isWell) process.exitCode = 1
}

const program = new Command('todo-api')
  .description('A complete to-do backend in one file: REST API, accounts, embedded PostgreSQL.')
  .helpOption('-h, --help', 'show this help')
  .helpCommand('help [command]', 'show help for a command')
  .addHelpText('after', '\nSettings come from the environment or from .env; `todo-api config` lists them.')
  .version(version, '-v, --version', 'print the version')
  .exitOverride()

// Every command, in the order of the help. A new one is a file in this folder and an entry here. It is loaded when it runs:
// `serve` starts without the others.

program
  .command('serve', { isDefault: true })
  .description('run the service (the default without a command)')
  .addHelpText(
    'after',
    `
Settings come from the environment or from .env. The ones to know:
  HOST, PORT        where it listens: 127.0.0.1 and 8000; HOST=0.0.0.0 for other machines
  DATA_DIR          the embedded database and the generated secret: ./data
  DATABASE_URL      a PostgreSQL server in place of the embedded database
  SECRET_KEY        signs the tokens; generated and kept in DATA_DIR if it is not set
  FRONTEND_URL      the origins whose pages may call: http://localhost:3000
  TRUSTED_PROXIES   the proxies in front, whose X-Forwarded-For counts
  ENVIRONMENT       development, or production
\`todo-api config\` shows all of them with the values in force.

Examples:
  todo-api
  PORT=9000 DATA_DIR=/var/lib/todo todo-api serve
  DATABASE_URL=postgres://todo:secret@localhost/todo SECRET_KEY_FILE=/run/secrets/key todo-api`,
  )
  .action(async () => (await import('./serve.ts')).serveCommand())

program
  .command('worker', { hidden: true })
  .description('one of the processes that `serve` starts when WORKERS is more than 1')
  .action(async () => (await import('./serve.ts')).workerCommand())

program
  .command('migrate')
  .description('apply pending migrations to the database and exit')
  .option('--status', 'only list pending migrations; exit code 1 if there are any')
  .option('--distribute', 'then split the tables by user over the servers of a Citus cluster')
  .action(async options => setExitCode(await (await import('./migrate.ts')).migrateCommand(options)))

program
  .command('healthcheck')
  .description('ask the service on this machine whether it is ready; exit code 0 or 1')
  .action(async () => setExitCode(await (await import('./healthcheck.ts')).healthcheckCommand()))

program
  .command('openapi')
  .description('print the OpenAPI document; needs no database')
  .action(async () => {
    const { openApiDocument } = await import('../server/openapi.ts')
    await print(`${JSON.stringify(await openApiDocument(), null, 2)}\n`)
  })

program
  .command('import [file]')
  .description('add the users, lists and tasks of an export, or of the FastAPI service')
  .option(
    '--from <url>',
    'the database of the FastAPI service; FROM_DATABASE_URL keeps its password out of the list of processes',
  )
  .addHelpText(
    'after',
    `
FILE is what \`export\` wrote; - is stdin. Rows that are already in the database stay unchanged, so it is safe to run
again. Rows that cannot be added are reported, one line each, and the exit code is 1. Users sign in again and make new
API tokens.

Examples:
  FROM_DATABASE_URL_FILE=/run/secrets/old todo-api import    users and tasks of the FastAPI service
  todo-api import --from postgres:///todo?host=/run/postgresql
  todo-api import todo.ndjson                                the output of \`todo-api export todo.ndjson\``,
  )
  .action(async (file, options) =>
    setExitCode(await (await import('./transfer/import.ts')).importCommand(file, options)),
  )

program
  .command('export [file]')
  .description('write all users, lists and tasks, or those of one user, as lines of JSON')
  .option('--user <user>', 'only this user: an e-mail address or an id')
  .addHelpText(
    'after',
    `
Without FILE, or with -, the lines go to stdout. They contain password hashes: keep them as safe as the database.
\`import\` reads them into any database: that is the way from the embedded database to PostgreSQL and back. Sessions and
API tokens are not exported: users sign in again and make new tokens.

Examples:
  todo-api export todo.ndjson
  todo-api export --user ada@example.com ada.ndjson
  todo-api export | DATABASE_URL=postgres://… todo-api import -`,
  )
  .action(async (file, options) => (await import('./transfer/export.ts')).exportCommand(file, options))

program
  .command('backup <file>')
  .description('pack the embedded database into one file, also while the service runs')
  .option('--verify', 'read the backup before it gets its name, and put an export into it')
  .addHelpText(
    'after',
    `
FILE may be - for stdout. The backup contains every change that was acknowledged before the command began, and the
generated secret key. It needs space for a copy of the database in DATA_DIR while it runs. For PostgreSQL, use pg_dump.

With --verify the backup is unpacked, opened and read in full before it gets its name, and it carries an export, so that
a todo-api with another PostgreSQL can restore it. BACKUP_EVERY makes such backups by itself.

Examples:
  todo-api backup --verify /backups/todo.tar.gz
  todo-api backup /backups/todo-$(date +%F).tar.gz
  docker exec todo-api todo-api backup - > todo.tar.gz`,
  )
  .action(async (file, options) => (await import('./backup/backup.ts')).backupCommand(file, options))

program
  .command('restore <file>')
  .description('replace the embedded database with a backup; stop the service first')
  .option('--force', 'set the existing database aside and put the backup in its place')
  .addHelpText(
    'after',
    `
FILE may be - for stdin. The backup is unpacked, opened and read in full before anything is changed. With --force, the
existing database is kept in DATA_DIR under a name that the command prints.

Examples:
  DATA_DIR=/new todo-api restore /backups/todo-2026-11-23.tar.gz
  todo-api restore --force todo.tar.gz`,
  )
  .action(async (file, options) => (await import('./backup/restore.ts')).restoreCommand(file, options))

program
  .command('reset-sync')
  .description('make every client sync from the beginning, after the database has lost changes')
  .addHelpText(
    'after',
    `
For a database that has lost changes which clients have seen: after pg_restore, or after a standby was promoted without
the last changes. Old cursors are then answered with 410, and old ETags match nothing. It may run beside the service, and
more than once. \`restore\` does it by itself, and \`import\` does not need it.

Example:
  todo-api reset-sync`,
  )
  .action(async () => (await import('./reset-sync.ts')).resetSyncCommand())

program
  .command('config')
  .description('print every setting in force and its source; secrets are hidden')
  .option('--json', 'one line of JSON each')
  .addHelpText('after', '\nExamples:\n  todo-api config\n  todo-api config --json | jq -r .name')
  .action(async options => (await import('./show-config.ts')).configCommand(options))

program
  .command('doctor')
  .description('check settings, data folder, database, migrations and clock, and say what to do')
  .option('--json', 'one line of JSON each')
  .addHelpText(
    'after',
    `
Changes nothing. Exit code 1 when something fails.

Examples:
  todo-api doctor
  todo-api doctor --json | jq -r 'select(.verdict == "fail").cure'`,
  )
  .action(async options => setExitCode(await (await import('./doctor.ts')).doctorCommand(options)))

const user = program
  .command('user')
  .description('manage accounts: list, create, reset-password, disable, enable, delete')
  .addHelpText(
    'after',
    `
USER is an e-mail address, in any case, or an id. A password is typed without an echo, or is the first line of stdin;
it is never an argument. A running service follows within a second.

Examples:
  todo-api user list
  todo-api user create ada@example.com
  openssl rand -base64 18 | tee /dev/stderr | todo-api user reset-password ada@example.com
  todo-api user disable ada@example.com
  todo-api user list --json | jq -r 'select(.disabled_at).email'`,
  )
  .helpCommand(false)

user
  .command('list')
  .description('every account: a table at a terminal, else lines of JSON')
  .option('--json', 'lines of JSON at a terminal, too')
  .action(async options => (await import('./user.ts')).listUsers(options))

user
  .command('create <email>')
  .description('create an account and print its id')
  .action(async email => (await import('./user.ts')).createUser(email))

user
  .command('reset-password <user>')
  .description('set a new password and end the sessions and API tokens of the account')
  .action(async user => (await import('./user.ts')).resetPassword(user))

user
  .command('disable <user>')
  .description('refuse sign-ins to the account and end its sessions and API tokens; its tasks stay')
  .action(async user => (await import('./user.ts')).disableUser(user))

user
  .command('enable <user>')
  .description('undo `disable`')
  .action(async user => (await import('./user.ts')).enableUser(user))

user
  .command('delete <user>')
  .description('delete the account, its sessions and its tasks for good')
  .option('--yes', 'do not ask')
  .action(async (user, options) => (await import('./user.ts')).deleteUser(user, options))

const token = program
  .command('token')
  .description('manage API tokens, the keys of programs: create, list, revoke')
  .addHelpText(
    'after',
    `
USER is an e-mail address, in any case, or an id. A token is printed once, to stdout, and cannot be shown again. A running
service follows within a second.

Examples:
  todo-api token create ada@example.com --name "Backup script" --scopes tasks:read
  todo-api token create ada@example.com --name Phone --scopes tasks:write,account:read --expires never
  todo-api token list ada@example.com
  todo-api token revoke - < leaked-token.txt`,
  )
  .helpCommand(false)

token
  .command('create <user>')
  .description('make an API token for a user and print it')
  .option('--name <name>', 'what it is for')
  .option(
    '--scopes <scopes>',
    'what it may do: tasks:read, tasks:write (includes read), account:read; several with commas',
  )
  .option(
    '--expires <when>',
    '30d, a time such as 2027-01-31T18:00:00Z, or never; by default 90d, at most a year',
  )
  .action(async (user, options) => (await import('./token.ts')).createToken(user, options))

token
  .command('list [user]')
  .description('the API tokens of a user, or of all: a table at a terminal, else lines of JSON')
  .option('--json', 'lines of JSON at a terminal, too')
  .action(async (user, options) => (await import('./token.ts')).listTokens(user, options))

token
  .command('revoke <id>')
  .description('end the API token with this id; with -, the one that is the first line of stdin')
  .action(async id => (await import('./token.ts')).revokeToken(id))

program
  .command('version')
  .description('print the version')
  .option('--licenses', 'print the licences of todo-api and of the software in it')
  .action(async options => (await import('./licenses.ts')).versionCommand(options))

/** Runs the command that `words` name. Ends the process once it has shown help, the version or a wrong use. */
export async function runCommand(words: readonly string[]): Promise<void> {
  // Commander would report an unknown word as an argument too many for the default command, `serve`.
  const [word] = words
  const isKnown = program.commands.some(command => command.name() === word)
  if (word !== undefined && !word.startsWith('-') && word !== 'help' && !isKnown) {
    throw new UsageError(`there is no command ${word}; \`todo-api help\` lists all of them`)
  }
  try {
    // Commander takes one short form; both are usual.
    await program.parseAsync(word === '-V' ? ['-v'] : words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    process.exit(error.exitCode === 0 ? 0 : 2)
  }
}
