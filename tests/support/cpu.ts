/**
 * The CPU time of each piece of work, in milliseconds: all threads of this process, so also what a service under test
 * does. Done in turns, and the least of each counts: a busy machine stretches the wall clock, and caches and clock
 * rates the CPU time, but only ever upwards.
 */
export async function leastCpuMs(work: Record<string, () => Promise<unknown>>, rounds: number) {
  const least: Record<string, number> = {}
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(work)) {
      const before = process.cpuUsage()
      await run()
      const { user, system } = process.cpuUsage(before)
      least[name] = Math.min(least[name] ?? Number.POSITIVE_INFINITY, (user + system) / 1000)
    }
  }
  return least
}

/** What takes noticeably more or less than `twin`, with how many times as much. */
export function unlike(twin: string, least: Record<string, number>) {
  return Object.entries(least)
    .map(([name, ms]) => [name, ms / least[twin]!] as const)
    .filter(([, ratio]) => ratio < 0.75 || ratio > 1.35)
}

/** The CPU time, in milliseconds, until something is done: all of it, and that of the longest turn of the event loop. */
export async function turnsUntil(done: Promise<unknown>) {
  const begin = process.cpuUsage()
  const sum = ({ user, system }: NodeJS.CpuUsage) => (user + system) / 1000
  let isDone = false
  void done.finally(() => {
    isDone = true
  })
  let longest = 0
  for (let before = begin; !isDone; before = process.cpuUsage()) {
    await new Promise(setImmediate)
    longest = Math.max(longest, sum(process.cpuUsage(before)))
  }
  return { all: sum(process.cpuUsage(begin)), longest }
}
