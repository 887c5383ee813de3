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
