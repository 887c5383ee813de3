import type { Result } from './compare.ts'
import { median, perSecond, serverCpu, sumCpu } from './report.ts'

const shown = ['list', 'read', 'create', 'update', 'mix']
const style = `
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #777 }
.ours { fill: #f472b6 } .theirs { fill: #94a3b8 } .postgres { opacity: .45 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .small { fill: #999 } }`

/** Two columns of bars for each work: requests a second, and CPU time a request (PostgreSQL's share paler). */
export function comparisonPicture(results: Result[], machine: string): string {
  const rowHeight = 18
  const parts: string[] = []
  let y = 40
  for (const { work, says, entries } of results.filter(
    result => shown.includes(result.work) && result.entries.length > 0,
  )) {
    const figures = entries.map(({ server, rounds }) => ({
      server,
      rate: median(rounds.map(perSecond)),
      own: median(rounds.map(serverCpu)),
      sum: median(rounds.map(sumCpu)),
    }))
    const fastest = Math.max(...figures.map(({ rate }) => rate))
    const dearest = Math.max(...figures.map(({ sum }) => sum))
    parts.push(
      `<text class="title" x="10" y="${y}">${work}</text><text class="small" x="70" y="${y}">${says}</text>`,
    )
    y += 8
    for (const { server, rate, own, sum } of figures) {
      const kind = server === 'todo-api' ? 'ours' : 'theirs'
      const mid = y + 13
      parts.push(
        `<text x="90" y="${mid}" text-anchor="end">${server}</text>`,
        bar(100, y, (rate / fastest) * 240, kind),
        `<text class="small" x="${106 + (rate / fastest) * 240}" y="${mid}">${Math.round(rate)}</text>`,
        bar(420, y, (sum / dearest) * 240, `${kind} postgres`),
        bar(420, y, (own / dearest) * 240, kind),
        `<text class="small" x="${426 + (sum / dearest) * 240}" y="${mid}">${Math.round(sum)}</text>`,
      )
      y += rowHeight
    }
    y += 26
  }
  const heads = `<text class="small" x="100" y="18">requests a second, more is better</text><text class="small" x="420" y="18">CPU µs a request, PostgreSQL’s share paler: less is better</text>`
  return svg(740, y + 4, `${heads}${parts.join('\n')}<text class="small" x="10" y="${y}">${machine}</text>`)
}

export interface Curve {
  name: string
  points: { x: number; y: number }[]
}

/** Lines over a logarithmic axis, one panel beside the other. */
export function curvesPicture(panels: { title: string; curves: Curve[] }[]): string {
  const colours = ['#f472b6', '#60a5fa', '#34d399', '#fbbf24', '#a78bfa']
  const width = 360
  const drawn = panels.map(({ title, curves }, at) => {
    const left = 50 + at * width
    const all = curves.flatMap(({ points }) => points)
    const [low, high] = [Math.min(...all.map(({ x }) => x)), Math.max(...all.map(({ x }) => x))]
    const top = Math.max(...all.map(({ y }) => y)) * 1.15
    const x = (value: number) => left + (Math.log(value / low) / Math.log(high / low)) * 270
    const y = (value: number) => 230 - (value / top) * 180
    const marks = [...new Set(all.map(point => point.x))].map(
      value =>
        `<text class="small" x="${x(value)}" y="248" text-anchor="middle">${value.toLocaleString('en')}</text>`,
    )
    const heights = [0, top / 2, top].map(
      value =>
        `<text class="small" x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${value.toFixed(1)}</text><path d="M${left} ${y(value)}h270" stroke="#9995" fill="none"/>`,
    )
    const lines = curves.map(({ name, points }, i) => {
      const path = points
        .map((point, n) => `${n ? 'L' : 'M'}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`)
        .join('')
      return `<path d="${path}" stroke="${colours[i]}" stroke-width="2" fill="none"/><text x="${left}" y="${270 + i * 15}" style="fill:${colours[i]}">${name}</text>`
    })
    return `<text class="title" x="${left}" y="24">${title}</text>${heights.join('')}${marks.join('')}${lines.join('')}`
  })
  const rows = Math.max(...panels.map(({ curves }) => curves.length))
  return svg(panels.length * width + 20, 275 + rows * 15, drawn.join('\n'))
}

const bar = (x: number, y: number, width: number, kind: string) =>
  `<rect class="${kind}" x="${x}" y="${y + 2}" width="${width.toFixed(1)}" height="14" rx="2"/>`

const svg = (width: number, height: number, inside: string) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"><style>${style}</style>\n${inside}\n</svg>\n`
