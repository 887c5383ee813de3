const pattern =
  /^(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,32}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))$/

/**
 * Parses an RFC 3339 date and time with an offset. Returns it in UTC with microseconds, the only form that the service
 * writes; finer digits are cut off. `undefined` for anything else: a day that does not exist, a leap second, and years
 * of UTC outside 1 to 9999.
 */
export function parseInstant(text: string): string | undefined {
  const match = pattern.exec(text)
  if (!match) return undefined
  const [, date, time, fraction = '', sign, hours, minutes] = match
  const local = new Date(`${date}T${time}Z`)
  // Date turns 31 February into 3 March and 24:00:00 into the next day: then it differs from the input.
  if (Number.isNaN(local.getTime()) || local.toISOString().slice(0, 19) !== `${date}T${time}`)
    return undefined
  const offset = sign ? (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) : 0
  const utc = new Date(local.getTime() - offset * 60_000).toISOString()
  // After year 9999 and before year 0 it begins with a sign.
  if (!/^\d/.test(utc) || utc.startsWith('0000')) return undefined
  return `${utc.slice(0, 19)}.${fraction.slice(0, 6).padEnd(6, '0')}Z`
}
