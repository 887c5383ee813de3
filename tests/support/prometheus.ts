/** One measured value: `name{labels} value`. */
interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** All samples under one `# TYPE`. */
interface Family {
  type: string
  help: string
  samples: Sample[]
}

const nameForm = '[a-zA-Z_:][a-zA-Z0-9_:]*'
const comment = new RegExp(`^# (HELP|TYPE) (${nameForm}) (.+)$`)
const sample = new RegExp(`^(${nameForm})(?:\\{(.*)\\})? (\\S+)$`)
const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/gy
const suffixes: Record<string, string[]> = {
  histogram: ['_bucket', '_sum', '_count'],
  counter: [''],
  gauge: [''],
}

/**
 * Reads Prometheus' text format 0.0.4 as strictly as its description puts it: one HELP and one TYPE before the samples of a
 * family, no series twice, histograms that add up. Throws at the first thing that is wrong.
 */
export function readPrometheus(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const families = new Map<string, Family>()
  const helps = new Map<string, string>()
  const seen = new Set<string>()
  let current: { name: string; family: Family } | undefined

  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, word, subject, rest] = comment.exec(line) ?? []
    if (word === 'HELP') {
      if (helps.has(subject!)) throw new Error(`two HELP lines for ${subject}`)
      helps.set(subject!, rest!)
    } else if (word === 'TYPE') {
      if (families.has(subject!)) throw new Error(`two TYPE lines for ${subject}`)
      if (!suffixes[rest!]) throw new Error(`unknown type in: ${line}`)
      const family = { type: rest!, help: helps.get(subject!) ?? '', samples: [] }
      families.set(subject!, family)
      current = { name: subject!, family }
    } else {
      const read = readSample(line)
      const names = current && suffixes[current.family.type]!.map(suffix => current!.name + suffix)
      if (!names?.includes(read.name)) throw new Error(`not under its TYPE: ${line}`)
      const series = `${read.name} ${JSON.stringify(Object.entries(read.labels).sort())}`
      if (seen.has(series)) throw new Error(`twice: ${line}`)
      seen.add(series)
      current!.family.samples.push(read)
    }
  }
  for (const [name, family] of families) {
    if (family.help === '') throw new Error(`no HELP before ${name}`)
    if (family.type === 'histogram') checkHistogram(name, family)
  }
  return families
}

function readSample(line: string): Sample {
  const [, name, inside = '', number] = sample.exec(line) ?? []
  if (!name) throw new Error(`no sample: ${line}`)
  const labels: Record<string, string> = {}
  let end = 0
  for (const match of inside.matchAll(label)) {
    if (match[1]! in labels) throw new Error(`a label twice: ${line}`)
    labels[match[1]!] = match[2]!
    end = match.index + match[0].length
  }
  if (end !== inside.length) throw new Error(`labels cannot be read: ${line}`)
  const value = number === '+Inf' ? Number.POSITIVE_INFINITY : Number(number)
  if (Number.isNaN(value)) throw new Error(`no number: ${line}`)
  return { name, labels, value }
}

/** Each bucket holds what the one before holds, and the last one everything. */
function checkHistogram(name: string, { samples }: Family) {
  const series = Object.groupBy(samples, ({ labels: { le, ...labels } }) => JSON.stringify(labels))
  for (const [labels, own] of Object.entries(series)) {
    const buckets = own!.filter(sample => sample.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels: { le } }) =>
      le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le),
    )
    const counts = buckets.map(({ value }) => value)
    const rises = (numbers: number[]) => numbers.every((number, i) => i === 0 || number >= numbers[i - 1]!)
    const count = own!.find(sample => sample.name === `${name}_count`)?.value
    const isWhole = bounds.at(-1) === Number.POSITIVE_INFINITY && counts.at(-1) === count
    if (!rises(bounds) || !rises(counts) || !isWhole || !own!.some(sample => sample.name === `${name}_sum`)) {
      throw new Error(`the histogram ${name} ${labels} does not add up`)
    }
  }
}

/** The value of the one series that has these labels, 0 when there is none. */
export function sampled(
  families: Map<string, Family>,
  name: string,
  labels: Record<string, string> = {},
): number {
  const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''))
  const found = family?.samples.filter(
    sample =>
      sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  )
  if (found && found.length > 1)
    throw new Error(`${name} ${JSON.stringify(labels)} is ${found.length} series`)
  return found?.[0]?.value ?? 0
}
