/** RFC 3339, without leap seconds, which Temporal takes for the second before. */
const pattern = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:[0-5]\d(\.\d{1,32})?([Zz]|[+-]\d\d:\d\d)$/

/**
 * Parses an RFC 3339 date and time with an offset. Returns it in UTC with microseconds, the only form that the service
 * writes; finer digits are cut off. `undefined` for anything else: a day that does not exist, a leap second, and years
 * of UTC outside 1 to 9999.
 */
export function parseInstant(text: string): string | undefined {
  if (!pattern.test(text)) return undefined
  try {
    const instant = Temporal.Instant.from(text.replace(/(\.\d{6})\d+/, '$1'))
    const utc = instant.toString({ fractionalSecondDigits: 6 })
    // After year 9999 and before year 0 it begins with a sign.
    return /^(?!0000)\d/.test(utc) ? utc : undefined
  } catch {
    return undefined
  }
}
