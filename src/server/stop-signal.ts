import { readFileSync } from 'node:fs'

/**
 * Calls `stop` at the first SIGTERM, SIGINT or SIGHUP, and `hurry` at a second SIGTERM or SIGINT. A terminal that closes
 * may send SIGHUP twice (the kernel and the shell do), so that one never hurries; under `nohup` it stays ignored.
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

/** Whether we were started by `nohup` or the like: SIGHUP, the first signal, is in the mask of ignored ones. */
function isHangupIgnored(): boolean {
  try {
    const [, mask] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
    return (BigInt(`0x${mask}`) & 1n) === 1n
  } catch {
    // Only Linux tells.
    return false
  }
}
