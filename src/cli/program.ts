import { Command, CommanderError } from 'commander'
import { version } from '../../package.json'
import { print, UsageError } from './terminal.ts'

/**
 * Receives the argument, '' without one, and the options, as commander has read them. If it resolves to false, the exit
 * code is 1.
 */
type Action = (argument: string, options: never) => Promise<unknown>

interface CommandEntry {
  /** With its argument: `<file>` is required, `[file]` is not. */
  usage: string
  description: string
  /** What each option does, by its form. */
  options?: Record<string, string>
  /** Shown below the generated help. */
  help?: string
  isHidden?: boolean
  /** A command is loaded when it runs: `serve` starts without the others. */
  load?: () => Promise<Action>
  commands?: CommandEntry[]
}

const userCommands: CommandEntry[] = [
  {
    usage: 'list',
    description: 'every account: a table at a terminal, else lines of JSON',
    options: { '--json': 'lines of JSON at a terminal, too' },
    load: async () => (await import('./user.ts')).listUsers,
  },
  {
    usage: 'create <email>',
    description: 'create an account and print its id',
    load: async () => (await import('./user.ts')).createUser,
  },
  {
    usage: 'reset-password <user>',
    description: 'set a new password and end the sessions and API tokens of the account',
    load: async () => (await import('./user.ts')).resetPassword,
  },
  {
    usage: 'disable <user>',
    description: 'refuse sign-ins to the account and end its sessions and API tokens; its tasks stay',
    load: async () => (await import('./user.ts')).disableUser,
  },
  {
    usage: 'enable <user>',
    description: 'undo `disable`',
    load: async () => (await import('./user.ts')).enableUser,
  },
  {
    usage: 'delete <user>',
    description: 'delete the account, its sessions and its tasks for good',
    options: { '--yes': 'do not ask' },
    load: async () => (await import('./user.ts')).deleteUser,
  },
]

const tokenCommands: CommandEntry[] = [
  {
    usage: 'create <user>',
    description: 'make an API token for a user and print it',
    options: {
      '--name <name>': 'what it is for',
      '--scopes <scopes>':
        'what it may do: tasks:read, tasks:write (includes read), account:read; several with commas',
      '--expires <when>':
        '30d, a time such as 2027-01-31T18:00:00Z, or never; by default 90d, at most a year',
    },
    load: async () => (await import('./token.ts')).createToken,
  },
  {
    usage: 'list [user]',
    description: 'the API tokens of a user, or of all: a table at a terminal, else lines of JSON',
    options: { '--json': 'lines of JSON at a terminal, too' },
    load: async () => (await import('./token.ts')).listTokens,
  },
  {
    usage: 'revoke <id>',
    description: 'end the API token with this id; with -, the one that is the first line of stdin',
    load: async () => (await import('./token.ts')).revokeToken,
  },
]

/** Every command, in the order of the help. A new one is a file in this folder and an entry here. */
const commands: CommandEntry[] = [
  {
    usage: 'serve',
    description: 'run the service (the default without a command)',
    help: `
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
    load: async () => (await import('./serve.ts')).serveCommand,
  },
  {
    usage: 'worker',
    description: 'one of the processes that `serve` starts when WORKERS is more than 1',
    isHidden: true,
    load: async () => (await import('./serve.ts')).workerCommand,
  },
  {
    usage: 'migrate',
    description: 'apply pending migrations to the database and exit',
    options: {
      '--status': 'only list pending migrations; exit code 1 if there are any',
      '--distribute': 'then split the tables by user over the servers of a Citus cluster',
    },
    load: async () => (await import('./migrate.ts')).migrateCommand,
  },
  {
    usage: 'healthcheck',
    description: 'ask the service on this machine whether it is ready; exit code 0 or 1',
    load: async () => (await import('./healthcheck.ts')).healthcheckCommand,
  },
  {
    usage: 'openapi',
    description: 'print the OpenAPI document; needs no database',
    load: async () => {
      const { openApiDocument } = await import('../server/openapi.ts')
      return async () => print(`${JSON.stringify(await openApiDocument(), null, 2)}\n`)
    },
  },
  {
    usage: 'import [file]',
    description: 'add the users, lists and tasks of an export, or of the FastAPI service',
    options: {
      '--from <url>':
        'the database of the FastAPI service; FROM_DATABASE_URL keeps its password out of the list of processes',
    },
    help: `
FILE is what \`export\` wrote; - is stdin. Rows that are already in the database stay unchanged, so it is safe to run
again. Rows that cannot be added are reported, one line each, and the exit code is 1. Users sign in again and make new
API tokens.

Examples:
  FROM_DATABASE_URL_FILE=/run/secrets/old todo-api import    users and tasks of the FastAPI service
  todo-api import --from 'postgres:///todo?host=/run/postgresql'
  todo-api import todo.ndjson                                the output of \`todo-api export todo.ndjson\``,
    load: async () => (await import('./transfer/import.ts')).importCommand,
  },
  {
    usage: 'export [file]',
    description: 'write all users, lists and tasks, or those of one user, as lines of JSON',
    options: { '--user <user>': 'only this user: an e-mail address or an id' },
    help: `
Without FILE, or with -, the lines go to stdout. They contain password hashes: keep them as safe as the database.
\`import\` reads them into any database: that is the way from the embedded database to PostgreSQL and back. Sessions and
API tokens are not exported: users sign in again and make new tokens.

Examples:
  todo-api export todo.ndjson
  todo-api export --user ada@example.com ada.ndjson
  todo-api export | DATABASE_URL=postgres://… todo-api import -`,
    load: async () => (await import('./transfer/export.ts')).exportCommand,
  },
  {
    usage: 'backup <file>',
    description: 'pack the embedded database into one file, also while the service runs',
    options: { '--verify': 'read the backup before it gets its name, and put an export into it' },
    help: `
FILE may be - for stdout. The backup contains every change that was acknowledged before the command began, and the
generated secret key. It needs space for a copy of the database in DATA_DIR while it runs. For PostgreSQL, use pg_dump.

With --verify the backup is unpacked, opened and read in full before it gets its name, and it carries an export, so that
a todo-api with another PostgreSQL can restore it. BACKUP_EVERY makes such backups by itself.

Examples:
  todo-api backup --verify /backups/todo.tar.gz
  todo-api backup /backups/todo-$(date +%F).tar.gz
  docker exec todo-api todo-api backup - > todo.tar.gz`,
    load: async () => (await import('./backup/backup.ts')).backupCommand,
  },
  {
    usage: 'restore <file>',
    description: 'replace the embedded database with a backup; stop the service first',
    options: { '--force': 'set the existing database aside and put the backup in its place' },
    help: `
FILE may be - for stdin. The backup is unpacked, opened and read in full before anything is changed. With --force, the
existing database is kept in DATA_DIR under a name that the command prints.

Examples:
  DATA_DIR=/new todo-api restore /backups/todo-2026-11-23.tar.gz
  todo-api restore --force todo.tar.gz`,
    load: async () => (await import('./backup/restore.ts')).restoreCommand,
  },
  {
    usage: 'reset-sync',
    description: 'make every client sync from the beginning, after the database has lost changes',
    help: `
For a database that has lost changes which clients have seen: after pg_restore, or after a standby was promoted without
the last changes. Old cursors are then answered with 410, and old ETags match nothing. It may run beside the service, and
more than once. \`restore\` does it by itself, and \`import\` does not need it.

Example:
  todo-api reset-sync`,
    load: async () => (await import('./reset-sync.ts')).resetSyncCommand,
  },
  {
    usage: 'config',
    description: 'print every setting in force and its source; secrets are hidden',
    options: { '--json': 'one line of JSON each' },
    help: '\nExamples:\n  todo-api config\n  todo-api config --json | jq -r .name',
    load: async () => (await import('./show-config.ts')).configCommand,
  },
  {
    usage: 'doctor',
    description: 'check settings, data folder, database, migrations and clock, and say what to do',
    options: { '--json': 'one line of JSON each' },
    help: `
Changes nothing. Exit code 1 when something fails.

Examples:
  todo-api doctor
  todo-api doctor --json | jq -r 'select(.verdict == "fail").cure'`,
    load: async () => (await import('./doctor/doctor.ts')).doctorCommand,
  },
  {
    usage: 'user',
    description: 'manage accounts: list, create, reset-password, disable, enable, delete',
    help: `
USER is an e-mail address, in any case, or an id. A password is typed without an echo, or is the first line of stdin;
it is never an argument. A running service follows within a second.

Examples:
  todo-api user list
  todo-api user create ada@example.com
  openssl rand -base64 18 | tee /dev/stderr | todo-api user reset-password ada@example.com
  todo-api user disable ada@example.com
  todo-api user list --json | jq -r 'select(.disabled_at).email'`,
    commands: userCommands,
  },
  {
    usage: 'token',
    description: 'manage API tokens, the keys of programs: create, list, revoke',
    help: `
USER is an e-mail address, in any case, or an id. A token is printed once, to stdout, and cannot be shown again. A running
service follows within a second.

Examples:
  todo-api token create ada@example.com --name "Backup script" --scopes tasks:read
  todo-api token create ada@example.com --name Phone --scopes tasks:write,account:read --expires never
  todo-api token list ada@example.com
  todo-api token revoke - < leaked-token.txt`,
    commands: tokenCommands,
  },
  {
    usage: 'version',
    description: 'print the version',
    options: { '--licenses': 'print the licences of todo-api and of the software in it' },
    load: async () => (await import('./version.ts')).versionCommand,
  },
]

/** Runs the command that `words` name. Ends the process once it has shown help, the version or a wrong use. */
export async function runCommand(words: readonly string[]): Promise<void> {
  const program = new Command('todo-api')
    .description('A complete to-do backend in one file: REST API, accounts, embedded PostgreSQL.')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show help for a command')
    .addHelpText('after', '\nSettings come from the environment or from .env; `todo-api config` lists them.')
    .version(version, '-v, --version', 'print the version')
    .exitOverride()
  for (const entry of commands) addCommand(program, entry)

  // Commander's own `help` ignores a subcommand, and says nothing of an unknown word.
  if (words[0] === 'help' && words.length > 1) return runCommand([...words.slice(1), '--help'])

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

function addCommand(parent: Command, { usage, description, options = {}, help, ...entry }: CommandEntry) {
  const { isHidden = false, load, commands = [] } = entry
  const command = parent
    .command(usage, { hidden: isHidden, isDefault: usage === 'serve' })
    .description(description)
  for (const [form, meaning] of Object.entries(options)) command.option(form, meaning)
  if (help) command.addHelpText('after', help)
  if (commands.length > 0) command.helpCommand(false)
  for (const subcommand of commands) addCommand(command, subcommand)
  if (!load) return
  command.action(async () => {
    // That of a variable which is not set: it would count as no argument, and `export` write to stdout.
    if (command.args[0] === '') throw new UsageError('the argument is empty')
    const run = await load()
    if ((await run(command.args[0] ?? '', command.opts<never>())) === false) process.exitCode = 1
  })
}
