import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Glob } from 'bun'
import type { Env } from '../../src/config/config.ts'
import { type Client, client } from './harness.ts'
import { until } from './until.ts'

const root = join(import.meta.dir, '../..')

let built: Promise<string> | undefined

/**
 * The built program; built now if it is absent or older than the sources (`bun run test` builds it before).
 * TEST_EXECUTABLE=PATH names another one, to run the tests against an older build.
 */
export async function executablePath(): Promise<string> {
  if (process.env.TEST_EXECUTABLE) return process.env.TEST_EXECUTABLE
  built ??= build()
  return built
}

/** Builds it, unless that was done since the sources changed. */
async function build(): Promise<string> {
  const path = join(root, 'dist/todo-api')
  if (
    existsSync(path) &&
    sources().every(file => statSync(join(root, file)).mtimeMs < statSync(path).mtimeMs)
  )
    return path
  const child = Bun.spawn([process.execPath, 'scripts/build.ts'], {
    cwd: root,
    stdout: 'ignore',
    stderr: 'pipe',
  })
  if ((await child.exited) !== 0)
    throw new Error(`the build failed: ${await new Response(child.stderr).text()}`)
  return path
}

/** The files that the program is made of: what .dockerignore lets through. */
export function sources(): string[] {
  const exceptions = readFileSync(join(root, '.dockerignore'), 'utf8').matchAll(/^!(.*)$/gm)
  return [...exceptions].flatMap(([, path]) =>
    [path!, `${path}/**/*`].flatMap(pattern => [...new Glob(pattern).scanSync({ cwd: root })]),
  )
}

export interface Running extends Client {
  process: Bun.Subprocess<'ignore', 'pipe', 'pipe'>
  /** The folder that it was started in. */
  folder: string
  /** Every line that it has logged so far. */
  lines: string[]
  /** Asks it to stop; the exit code. */
  stop(): Promise<number>
}

/**
 * Starts the built executable in an empty folder of its own, with nothing in its environment but `PATH` and `env`, on
 * a free port; resolves when it listens. `path` names another build.
 */
export async function startExecutable(env: Env = {}, path?: string): Promise<Running> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-run-'))
  const child = Bun.spawn([path ?? (await executablePath()), 'serve'], {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: '0', ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const lines: string[] = []
  const listening = Promise.withResolvers<string>()
  const reading = readLines(child.stdout, line => {
    lines.push(line)
    const event = JSON.parse(line)
    if (event.msg === 'listening') listening.resolve(event.url)
  })
  child.exited.then(async code => {
    listening.reject(new Error(`exit code ${code}: ${await new Response(child.stderr).text()}`))
  })
  const url = await listening.promise
  return {
    ...client(url.replace(/\/$/, '')),
    process: child,
    folder,
    lines,
    async stop() {
      child.kill('SIGTERM')
      const code = await child.exited
      await reading
      rmSync(folder, { recursive: true, force: true })
      return code
    },
  }
}

/** Waits until a service is ready for work. */
export const untilReady = (service: Client) =>
  until(async () => (await service.get('/health/ready')).status === 200)

async function readLines(stream: ReadableStream<Uint8Array>, take: (line: string) => void) {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop()!
    for (const line of parts) if (line !== '') take(line)
  }
}
