import { chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, isListening, withPort } from './ports.ts'

/** The program, `undefined` when it is not installed. */
export const pgbouncer = Bun.which('pgbouncer') ?? Bun.which('pgbouncer', { PATH: '/usr/sbin' }) ?? undefined

export interface PgBouncer {
  port: number
  /** The same address of a database, through the proxy. */
  through(url: string): string
  /** Ends it at once, with every connection. */
  kill(): Promise<void>
  /** Starts it again after `kill`, on the same port. */
  start(): Promise<void>
  stop(): Promise<void>
}

/** The limits that a service would set for itself: the proxy does not pass them on. */
const limits = `connect_query='set statement_timeout = 1800; set lock_timeout = 1000'`

/** A PgBouncer that pools transactions in front of a server; `url` is its superuser's address. */
export async function startPgBouncer(url: string, settings: Record<string, string> = {}): Promise<PgBouncer> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-pgbouncer-'))
  const { hostname, port: serverPort, username, password } = new URL(url)
  const port = await freePort()
  const all = {
    listen_addr: '127.0.0.1',
    listen_port: String(port),
    unix_socket_dir: '',
    auth_type: 'plain',
    auth_file: join(folder, 'users'),
    pool_mode: 'transaction',
    max_client_conn: '1000',
    default_pool_size: '10',
    // How soon a server that was away is tried again, in seconds; its own default is 15.
    server_login_retry: '0.5',
    ...settings,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}`)
  writeFileSync(
    join(folder, 'ini'),
    `[databases]\n* = host=${hostname} port=${serverPort} ${limits}\n[pgbouncer]\n${lines.join('\n')}\n`,
  )
  writeFileSync(join(folder, 'users'), `"${username}" "${password}"\n"todo" "todo"\n`)
  const user = ownerForProxy(folder)
  let child: Bun.Subprocess

  async function start() {
    child = Bun.spawn([pgbouncer!, '-q', ...user, join(folder, 'ini')], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    await listening(port, child)
  }

  async function kill() {
    child.kill('SIGKILL')
    await child.exited
  }

  await start()

  return {
    port,
    through: address => withPort(address, port),
    start,
    kill,
    async stop() {
      await kill()
      rmSync(folder, { recursive: true })
    },
  }
}

/** It refuses to run as root, too. */
function ownerForProxy(folder: string): string[] {
  if (process.getuid?.() !== 0) return []
  const { uid, gid } = { uid: 65534, gid: 65534 }
  for (const path of [folder, join(folder, 'ini'), join(folder, 'users')]) chownSync(path, uid, gid)
  return statSync(folder).uid === uid ? ['--user=nobody'] : []
}

async function listening(port: number, child: Bun.Subprocess) {
  const until = performance.now() + 10_000
  while (!(await isListening(port))) {
    if (child.exitCode !== null || performance.now() > until) throw new Error('PgBouncer did not start')
    await Bun.sleep(10)
  }
}
