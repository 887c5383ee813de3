import { readFileSync } from 'node:fs'

/**
 * Calls `stop` at the first SIGTERM, SIGINT or SIGHUP, and `hurry` at a second SIGTERM or SIGINT. Not at a second SIGHUP:
 * when a terminal closes, the kernel and the shell each send one. Under `nohup` SIGHUP stays ignored.
 */
export function onStopSignal(stop: (signal: NodeJS.Signals) => unknown, hurry: () => void) {
  let isStopping = false
  const handle = (signal: NodeJS.Signals) => {
    if (isStopping) return signal === 'SIGHUP' ? undefined : hurry()
    isStopping = true
    stop(signal)
  }
  process.on('SIGTERM', handle)
  process.on('SIGINT', handle)
  if (!isHangupIgnored()) process.on('SIGHUP', handle)
}

/** Whether the program was started by `nohup`: SIGHUP, signal 1, is in the mask of ignored signals. */
function isHangupIgnored(): boolean {
  try {
    const [, mask] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
    return (BigInt(`0x${mask}`) & 1n) === 1n
  } catch {
    // Only Linux has this file.
    return false
  }
}
