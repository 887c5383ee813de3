/** The load generator for machines without wrk: `generator.ts URL FILE SECONDS CONNECTIONS`, a process of its own. */
import { readFileSync } from 'node:fs'

const [url = '', file = '', seconds = '1', connections = '1'] = process.argv.slice(2)
const { hostname, port } = new URL(url)
const requests: string[] = JSON.parse(readFileSync(file, 'utf8'))

const latencies: number[] = []
let next = 0
let count = Date.now() % 50_000_000
let errors = 0
const begun = performance.now()
const until = begun + Number(seconds) * 1000

await Promise.all(Array.from({ length: Number(connections) }, oneConnection))
const took = (performance.now() - begun) / 1000
latencies.sort((a, b) => a - b)
const percentile = (share: number) => latencies[Math.floor(latencies.length * share)] ?? 0
console.log(
  JSON.stringify({
    requests: latencies.length,
    seconds: took,
    p50: percentile(0.5),
    p99: percentile(0.99),
    errors,
  }),
)

/** Sends one request after the other, each when the answer to the one before is complete. */
function oneConnection(): Promise<void> {
  return new Promise(resolve => {
    let sent = 0
    let received = ''
    const send = (socket: Bun.Socket) => {
      if (performance.now() >= until) return void socket.end()
      const text = requests[next++ % requests.length]!
      sent = performance.now()
      socket.write(
        text.includes('########') ? text.replace('########', String(++count).padStart(8, '0')) : text,
      )
    }
    Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        open: send,
        data(socket, chunk) {
          received += chunk.toString('latin1')
          const head = received.indexOf('\r\n\r\n')
          if (head < 0) return
          const length = Number(/content-length: (\d+)/i.exec(received.slice(0, head))?.[1] ?? 0)
          if (received.length < head + 4 + length) return
          if (received.charCodeAt(9) >= 0x34) errors++
          latencies.push(performance.now() - sent)
          received = ''
          send(socket)
        },
        close: () => resolve(),
        error: () => void errors++,
      },
    }).catch(() => {
      errors++
      resolve()
    })
  })
}
