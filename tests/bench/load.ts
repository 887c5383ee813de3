/** Drives a server with prepared requests and says what came of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { outcomeOf } from '../support/outcome.ts'

export interface Call {
  method: string
  path: string
  headers?: Record<string, string>
  /** `########` in it is replaced by a number that grows with every request. */
  body?: string
}

export interface Outcome {
  requests: number
  seconds: number
  /** Milliseconds. */
  p50: number
  p99: number
  /** Answers of 400 and above, and requests without one. */
  errors: number
}

export const connections = 20

/** wrk: written in C, so that it takes little of the cores that it shares with the servers. */
export const generator = Bun.which('wrk') ? 'wrk' : 'the bundled generator'

/** Sends the calls in turn over `connections` kept connections, each waiting for its answer, for some seconds. */
export async function drive(url: string, calls: Call[], seconds: number, at = connections): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-bench-'))
  try {
    const { host } = new URL(url)
    const texts = calls.map(call => requestText(call, host))
    const child =
      generator === 'wrk' ? wrk(folder, url, texts, seconds, at) : bundled(folder, url, texts, seconds, at)
    const { exitCode, stdout, stderr } = await outcomeOf(child)
    const line = stdout.split('\n').find(line => line.startsWith('{'))
    if (exitCode !== 0 || !line) throw new Error(`the load generator failed: ${stderr}${stdout}`)
    return JSON.parse(line)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function requestText({ method, path, headers = {}, body }: Call, host: string): string {
  const all = {
    host,
    origin: 'http://localhost:3000',
    ...headers,
    ...(body && { 'content-length': Buffer.byteLength(body) }),
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body ?? ''}`
}

const piped = { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' } as const

function wrk(folder: string, url: string, texts: string[], seconds: number, at: number) {
  const script = join(folder, 'requests.lua')
  const counting = texts[0]!.includes('########')
  const count = Date.now() % 50_000_000
  writeFileSync(
    script,
    `local requests = {\n${texts.map(text => JSON.stringify(text)).join(',\n')}\n}
local i, count = 0, ${count}
function request()
  i = i % #requests + 1
  ${counting ? "count = count + 1\n  return (requests[i]:gsub('########', string.format('%08d', count)))" : 'return requests[i]'}
end
function done(summary, latency)
  local e = summary.errors
  print(string.format('{"requests":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"errors":%d}', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status + e.connect + e.read + e.write + e.timeout))
end
`,
  )
  return Bun.spawn(['wrk', '-t1', `-c${at}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, url], piped)
}

function bundled(folder: string, url: string, texts: string[], seconds: number, at: number) {
  const file = join(folder, 'requests.json')
  writeFileSync(file, JSON.stringify(texts))
  return Bun.spawn(
    [process.execPath, join(import.meta.dir, 'generator.ts'), url, file, String(seconds), String(at)],
    piped,
  )
}
