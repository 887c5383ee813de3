/** What a process costs, as the kernel counts it. Linux only: elsewhere the figures are missing. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

const ticksPerSecond = 100

/** CPU seconds of a process and all its descendants so far; children that have ended count with their parent. */
export function cpuSeconds(pid: number, pids = [pid, ...descendants(pid)]): number {
  let ticks = 0
  for (const each of pids) {
    // "pid (name) state ppid … utime stime cutime cstime": fields 14 to 17.
    const fields = statOf(each)
    ticks += [11, 12, 13, 14].reduce((sum, i) => sum + Number(fields[i] ?? 0), 0)
  }
  return ticks / ticksPerSecond
}

/** Resident memory in MB, without the pages that are shared with others (PostgreSQL's buffers). */
export function privateMegabytes(pid: number, pids = [pid, ...descendants(pid)]): number {
  let kilobytes = 0
  for (const each of pids) {
    const status = read(`/proc/${each}/status`)
    kilobytes += Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? 0)
  }
  return kilobytes / 1024
}

/** Resident memory in MB as `ps` shows it. */
export function residentMegabytes(pid: number, pids = [pid, ...descendants(pid)]): number {
  let kilobytes = 0
  for (const each of pids) {
    kilobytes += Number(/VmRSS:\s+(\d+)/.exec(read(`/proc/${each}/status`))?.[1] ?? 0)
  }
  return kilobytes / 1024
}

export function descendants(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const name of existsSync('/proc') ? readdirSync('/proc') : []) {
    if (/^\d+$/.test(name)) parents.set(Number(name), Number(statOf(Number(name))[1]))
  }
  const found = [pid]
  for (const parent of found) {
    for (const [child, its] of parents) if (its === parent) found.push(child)
  }
  return found.slice(1)
}

/** The process that listens on a port of this machine: for peers that were started elsewhere. */
export function listenerOf(port: number): number | undefined {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  const rows = `${read('/proc/net/tcp')}\n${read('/proc/net/tcp6')}`
    .split('\n')
    .map(row => row.trim().split(/\s+/))
  const inode = rows.find(row => row[1]?.endsWith(`:${hex}`) && row[3] === '0A')?.[9]
  if (!inode) return undefined
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .find(pid => linksOf(`/proc/${pid}/fd`).includes(`socket:[${inode}]`))
}

/** Whether `perf` can count instructions here: many virtual machines hide the counters. */
export function canCountInstructions(): boolean {
  if (!Bun.which('perf')) return false
  const { stderr } = Bun.spawnSync(['perf', 'stat', '-x,', '-e', 'instructions', 'true'])
  return /^\d+,/m.test(stderr.toString())
}

/** Counts the instructions of these processes (and their descendants) until `stop` is called. */
export function countInstructions(pid: number) {
  const pids = [pid, ...descendants(pid)].join(',')
  const perf = Bun.spawn(['perf', 'stat', '-x,', '-e', 'instructions', '-p', pids], {
    stdout: 'ignore',
    stderr: 'pipe',
  })
  return {
    async stop(): Promise<number> {
      perf.kill('SIGINT')
      const text = await new Response(perf.stderr).text()
      return Number(/^(\d+),/m.exec(text)?.[1] ?? Number.NaN)
    },
  }
}

/** The fields of `/proc/PID/stat` after the name, which may hold anything: 0 is the state, 1 the parent. */
function statOf(pid: number): string[] {
  const stat = read(`/proc/${pid}/stat`)
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function linksOf(folder: string): string[] {
  try {
    return readdirSync(folder).map(name => readlinkSync(`${folder}/${name}`))
  } catch {
    return []
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
