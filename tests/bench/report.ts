import type { Result, Round } from './compare.ts'

/** Medians of the rounds, and how the first server stands to each of the others: below 1 is better but for requests. */
export function showComparison(results: Result[]): string {
  return results.map(showWork).join('\n')
}

function showWork({ work, says, entries }: Result): string {
  const [ours] = entries
  if (!ours) return `### ${work}: no server can do this yet\n`
  const counted = ours.rounds[0]?.serverInstructions !== undefined
  const head = [
    'server',
    ...['req/s', 'p50 ms', 'p99 ms', 'server µs', 'PG µs', 'sum µs'],
    ...(counted ? ['server kI', 'PG kI'] : []),
    ...['MB', 'req/s ×', 'server CPU ×', 'sum CPU ×'],
    ...(counted ? ['server kI ×', 'sum kI ×'] : []),
  ]
  const rows = entries.map(({ server, rounds, residentMegabytes }) => {
    const middle = (of: (round: Round) => number, digits = 0) => median(rounds.map(of)).toFixed(digits)
    const ratio = (of: (round: Round) => number) =>
      server === ours.server ? '' : showSpread(ours.rounds.map((round, i) => of(round) / of(rounds[i]!)))
    const errors = rounds.reduce((total, round) => total + round.errors, 0)
    return [
      server + (errors > 0 ? ` (${errors} errors!)` : ''),
      middle(perSecond, median(rounds.map(perSecond)) < 100 ? 2 : 0),
      middle(round => round.p50, 2),
      middle(round => round.p99, 2),
      middle(serverCpu),
      middle(round => round.postgresCpu),
      middle(sumCpu),
      ...(counted ? [middle(serverInstructions), middle(round => round.postgresInstructions!)] : []),
      residentMegabytes.toFixed(0),
      ratio(perSecond),
      ratio(serverCpu),
      ratio(sumCpu),
      ...(counted ? [ratio(serverInstructions), ratio(sumInstructions)] : []),
    ]
  })
  return `### ${work}: ${says}\n\n${table([head, ...rows])}\n`
}

export const perSecond = (round: Round) => round.perSecond
export const serverCpu = (round: Round) => round.serverCpu
export const sumCpu = (round: Round) => round.serverCpu + round.postgresCpu
const serverInstructions = (round: Round) => round.serverInstructions!
const sumInstructions = (round: Round) => round.serverInstructions! + round.postgresInstructions!

/** The middle and, in brackets, the least and the most. */
function showSpread(values: number[]): string {
  const show = (value: number) => (Number.isNaN(value) ? '?' : value.toFixed(value < 10 ? 2 : 1))
  return `${show(median(values))} (${show(Math.min(...values))}–${show(Math.max(...values))})`
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A Markdown table whose columns also stand in line in a terminal. */
export function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map(row => row[i]!.length)))
  const line = (row: string[]) =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`
  const rule = `|${widths.map((width, i) => (i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`
  const [head, ...body] = rows
  return [line(head!), rule, ...body.map(line)].join('\n')
}
