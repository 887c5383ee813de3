import { readFileSync } from 'node:fs'

/**
 * Milliseconds since this call, less those in which the main thread of this process, or of one of the others, was ready
 * to run and waited for a processor. A busy machine adds such waits to an answer. On a quiet one there are next to none,
 * so nothing that the service is late by is left out; its own work, and what it waits for itself, always count.
 */
export function stopwatch(...pids: number[]): () => number {
  const all = [process.pid, ...pids]
  const beganAt = performance.now()
  const waitedBefore = all.map(processorWaitMs)
  return () => {
    const waited = all.map((pid, i) => Math.max(0, processorWaitMs(pid) - waitedBefore[i]!))
    return performance.now() - beganAt - waited.reduce((sum, ms) => sum + ms, 0)
  }
}

/** As the Linux kernel counts it; 0 on other systems and for a process that has ended. */
function processorWaitMs(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
  } catch {
    return 0
  }
}

/** How long requests go on being refused. `watch` begins a stopwatch. */
export function createRecovery(watch: () => () => number) {
  let current = { elapsed: watch(), lastRefusedAt: 0 }

  return {
    /** Begins now: the milliseconds until the last request began that was refused. */
    measure() {
      const measured = { elapsed: watch(), lastRefusedAt: 0 }
      current = measured
      return () => measured.lastRefusedAt
    },
    /** A request was refused that began this many milliseconds ago. */
    refused(took: number) {
      current.lastRefusedAt = Math.max(current.lastRefusedAt, current.elapsed() - took)
    },
  }
}
