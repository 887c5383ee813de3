/** A statement that takes so long, in milliseconds, is slow: as a rule it waits for a lock that somebody holds. */
const slowMs = 500
/** How long after the last slow statement everything is as usual again. */
const troubleMs = 5000
const textsMax = 1000

/**
 * Keeps one locked table from taking every connection. While some statements are slow, those that have not shown to be
 * quick in the meantime share half of the connections. Beyond that half, a text of which nothing is known may have one
 * connection to show what it is.
 */
export function createSlowLane(connections: number) {
  const suspectsMax = Math.ceil(connections / 2)
  let troubleUntil = Number.NEGATIVE_INFINITY
  const isQuick = new Map<string, boolean>()
  /** Suspects on their way, by their text. */
  const sent = new Map<string, number>()
  let count = 0

  const isSuspect = (text: string, now: number) => now < troubleUntil && isQuick.get(text) !== true

  /** A new trouble begins with empty books: whoever was not seen to leave the last one is not counted for ever. */
  function forget() {
    isQuick.clear()
    sent.clear()
    count = 0
  }

  function note(text: string, quick: boolean) {
    if (isQuick.size >= textsMax) isQuick.clear()
    isQuick.set(text, quick)
  }

  return {
    /** Whether a statement may be sent now. */
    admits(text: string, now: number): boolean {
      if (!isSuspect(text, now) || count < suspectsMax) return true
      return !isQuick.has(text) && !sent.has(text)
    },

    /** Notes that a statement is sent; true when it is a suspect, who must be seen to `leave`. */
    enter(text: string, now: number): boolean {
      if (!isSuspect(text, now)) return false
      count++
      sent.set(text, (sent.get(text) ?? 0) + 1)
      return true
    },

    leave(text: string) {
      const left = (sent.get(text) ?? 0) - 1
      if (left < 0) return
      count--
      if (left > 0) sent.set(text, left)
      else sent.delete(text)
    },

    /** Notes how long a statement took, in milliseconds, whatever came of it. */
    learn(text: string, took: number, now: number) {
      if (took >= slowMs) {
        if (now >= troubleUntil) forget()
        troubleUntil = now + troubleMs
        note(text, false)
      } else if (now < troubleUntil) note(text, true)
    },
  }
}
