/** What may never happen, whatever the database does. */
export type Failure =
  | 'wrong answer'
  | 'status 500'
  | 'status 401'
  | 'other status'
  | 'late answer'
  | 'refused too often'
  | 'no answer'
  | 'lost write'
  | 'spoilt row'
  | 'not ready'
  | 'not felt'

export type Tally = ReturnType<typeof createTally>

/** What one fault has done so far. */
export interface Section {
  rounds: number
  answered: number
  refused: number
  /** The slowest answer, and the longest time until the service was ready and refused nothing more, in milliseconds. */
  slowest: number
  recovery: number
  failures: Map<Failure, number>
  /** The first failures of each kind, in words. */
  examples: string[]
}

const examplesMax = 3

/** Counts requests and failures, by fault and by kind of request. */
export function createTally() {
  const sections = new Map<string, Section>()
  const requests = new Map<string, Map<string, number>>()
  let current = sectionOf('the beginning')

  function sectionOf(name: string): Section {
    const found = sections.get(name) ?? {
      ...{ rounds: 0, answered: 0, refused: 0, slowest: 0, recovery: 0 },
      failures: new Map(),
      examples: [],
    }
    sections.set(name, found)
    return found
  }

  return {
    begin(name: string): Section {
      current = sectionOf(name)
      current.rounds++
      return current
    },
    request(kind: string, outcome: string, milliseconds: number) {
      const outcomes = requests.get(kind) ?? new Map<string, number>()
      requests.set(kind, outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1))
      if (outcome === '503' || outcome === 'lost') current.refused++
      else current.answered++
      current.slowest = Math.max(current.slowest, milliseconds)
    },
    recovered(milliseconds: number) {
      current.recovery = Math.max(current.recovery, milliseconds)
    },
    fail(failure: Failure, text: string) {
      const count = (current.failures.get(failure) ?? 0) + 1
      current.failures.set(failure, count)
      if (count <= examplesMax) current.examples.push(`${failure}: ${text}`.slice(0, 500))
    },
    failures: () => [...sections.values()].flatMap(({ examples }) => examples),
    /** Two tables: what each fault did, and what each kind of request was answered. */
    report(): string {
      const faults = [...sections].map(([name, section]) => {
        const { rounds, answered, refused, slowest, recovery, failures } = section
        const bad = [...failures].map(([failure, count]) => `${count} × ${failure}`).join(', ')
        return [name, rounds, answered, refused, Math.round(slowest), Math.round(recovery), bad || '-']
      })
      const kinds = [...requests].map(([kind, outcomes]) => [
        kind,
        [...outcomes]
          .sort()
          .map(([outcome, count]) => `${count} × ${outcome}`)
          .join(', '),
      ])
      const examples = [...sections].flatMap(([name, section]) =>
        section.examples.map(text => `${name}: ${text}`),
      )
      return [
        examples.join('\n'),
        table([
          ['fault', 'rounds', 'answered', '503 or lost', 'slowest ms', 'answers after ms', 'failures'],
          ...faults,
        ]),
        table([['request', 'answers'], ...kinds.sort()]),
      ].join('\n\n')
    },
  }
}

function table(rows: (string | number)[][]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map(row => String(row[i]).length)))
  return rows
    .map(row =>
      row
        .map((cell, i) => String(cell).padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
