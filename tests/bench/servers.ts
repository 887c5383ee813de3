/** Starts the service and its peers, each as a process of its own on a free port. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../support/ports.ts'
import { listenerOf } from './measure.ts'
import { secretKey } from './seed.ts'

export interface Server {
  name: string
  url: string
  /** Unknown for a peer on another machine: then only the answers are measured. */
  pid: number | undefined
  /** Milliseconds from the start of the process to its first answer. */
  startMs?: number
  stop(): Promise<void>
}

const folder = join(import.meta.dir, 'peers')
export const root = join(import.meta.dir, '../..')

/** Names in the order of the tables. All but the first two and the last verify the token and load the session or the user. */
export const peers = {
  bare: { command: ['bun', 'bare.js'], says: 'bare Bun.serve + postgres.js, as written' },
  tuned: { command: ['bun', 'bare-tuned.js'], says: 'the same, tuned' },
  draft: { command: ['bun', 'elysia-drizzle.js'], says: 'the usual Elysia + Drizzle draft' },
  hono: { command: ['bun', 'hono.js'], says: 'Hono on Bun + postgres.js, tuned' },
  fastify: { command: ['node', 'fastify.js'], says: 'Fastify 5 on Node + pg, tuned' },
  fastapi: { command: ['python3', 'fastapi'], says: 'the usual FastAPI + SQLModel service, one worker' },
  'bare hash': { command: ['bun', 'bare-hash.js'], says: 'nothing but the check of a password' },
} as const satisfies Record<string, { command: string[]; says: string }>

export type PeerName = keyof typeof peers

/** The executable as it ships: log lines written, every check on. Only the throttles are off: one client sends it all. */
export const startService = (
  executable: string,
  databaseUrl: string,
  env: Record<string, string> = {},
  name = 'todo-api',
) =>
  start(name, [executable], {
    env: {
      DATABASE_URL: databaseUrl,
      LOGIN_LIMIT: '0',
      LOGIN_FAILURE_LIMIT: '0',
      REGISTER_LIMIT: '0',
      ENVIRONMENT: 'production',
      ...env,
    },
  })

/** Brings a database up to date. */
export async function migrate(executable: string, databaseUrl: string) {
  const env = { PATH: process.env.PATH ?? '', DATABASE_URL: databaseUrl }
  const child = Bun.spawn([executable, 'migrate'], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  if ((await child.exited) !== 0) throw new Error('the database could not be brought up to date')
}

export async function startPeer(name: PeerName, databaseUrl: string): Promise<Server | undefined> {
  const [runtime, file] = peers[name].command
  const program = runtime === 'bun' ? process.execPath : Bun.which(runtime)
  if (!program) return undefined
  const env = { DATABASE_URL: databaseUrl }
  if (runtime === 'python3') return startPython(name, program, join(folder, file), env)
  await installPeers()
  return start(name, [program, join(folder, file)], { env })
}

/** In an environment of its own, so that nothing of the machine's Python is touched. */
async function startPython(name: string, python: string, cwd: string, env: Record<string, string>) {
  const environment = join(cwd, '.venv')
  const program = join(environment, 'bin/python')
  if (!existsSync(environment)) {
    await run([python, '-m', 'venv', environment], cwd)
    await run([program, '-m', 'pip', 'install', '--quiet', '--requirement', 'requirements.txt'], cwd)
  }
  const port = await freePort()
  const command = [program, '-m', 'uvicorn', 'main:app', '--port', String(port), '--no-access-log']
  return start(name, [...command, '--log-level', 'warning'], { cwd, port, env })
}

/** A peer of the caller's: a command that listens on `PORT` of 127.0.0.1, or the address of one that runs already. */
export async function startGiven(name: string, what: string, databaseUrl: string): Promise<Server> {
  if (!/^https?:/.test(what)) return start(name, what.split(' '), { env: { DATABASE_URL: databaseUrl } })
  const { origin, port } = new URL(what)
  console.error(
    `waiting for ${name} at ${what}; it needs DATABASE_URL=${databaseUrl} SECRET_KEY=${secretKey}`,
  )
  await answers(origin, 600)
  return { name, url: origin, pid: listenerOf(Number(port)), stop: async () => {} }
}

interface StartOptions {
  env: Record<string, string>
  port?: number
  cwd?: string
}

async function start(name: string, command: string[], options: StartOptions): Promise<Server> {
  const port = options.port ?? (await freePort())
  const url = `http://127.0.0.1:${port}`
  const begun = performance.now()
  const child = Bun.spawn(command, {
    cwd: options.cwd ?? root,
    env: {
      PATH: process.env.PATH ?? '',
      HOME: process.env.HOME ?? '',
      NODE_ENV: 'production',
      HOST: '127.0.0.1',
      PORT: String(port),
      SECRET_KEY: secretKey,
      ...options.env,
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  await answers(url, 20, () => child.exitCode !== null || child.signalCode !== null)
  return {
    name,
    url,
    pid: child.pid,
    startMs: performance.now() - begun,
    async stop() {
      child.kill('SIGTERM')
      const killer = setTimeout(() => child.kill('SIGKILL'), 3000)
      await child.exited
      clearTimeout(killer)
    },
  }
}

async function answers(url: string, seconds: number, isGone = () => false) {
  const until = performance.now() + seconds * 1000
  for (;;) {
    if (isGone()) throw new Error(`the server for ${url} has ended`)
    try {
      const answer = await fetch(`${url}/health`)
      await answer.text()
      if (answer.ok) return
    } catch {
      // Not yet.
    }
    if (performance.now() > until) throw new Error(`no server answers at ${url}`)
    await Bun.sleep(5)
  }
}

async function installPeers() {
  if (existsSync(join(folder, 'node_modules'))) return
  await run([process.execPath, 'install', '--frozen-lockfile', '--silent'], folder)
}

async function run(command: string[], cwd: string) {
  const child = Bun.spawn(command, { cwd, stdio: ['ignore', 2, 2] })
  if ((await child.exited) !== 0) throw new Error(`${command.join(' ')} failed`)
}
