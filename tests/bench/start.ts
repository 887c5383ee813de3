import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { drive } from './load.ts'
import { privateMegabytes, residentMegabytes } from './measure.ts'
import { median, table } from './report.ts'
import { seed, signedIn } from './seed.ts'
import { startService } from './servers.ts'

interface StartMeasurement {
  executable: string
  newDatabase: (name: string) => Promise<string>
  settings: Record<string, string>
  quick: boolean
  say: (text: string) => void
}

/** From the start of the process to the first answer, against a compiled server that does nothing; then the memory. */
export async function measureStart({ executable, newDatabase, settings, quick, say }: StartMeasurement) {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-bench-'))
  try {
    const empty = await buildEmpty(folder)
    const url = await newDatabase('start')
    const first = await startService(executable, url, settings)
    while (!(await fetch(`${first.url}/health/ready`)).ok) await Bun.sleep(20)
    await first.stop()

    const times = { ours: [] as number[], empty: [] as number[] }
    for (let i = 0; i < (quick ? 5 : 21); i++) {
      for (const [name, path] of [
        ['ours', executable],
        ['empty', empty],
      ] as const) {
        const server = await startService(path, url, settings)
        times[name].push(server.startMs!)
        await server.stop()
      }
    }
    say('memory')
    const memory = await measureMemory(executable, url, settings, quick ? 50_000 : 1_000_000)
    const middle = { ours: median(times.ours), empty: median(times.empty) }
    const size = statSync(executable).size / 1e6
    console.log(
      table([
        ['', 'todo-api', 'empty Bun.serve', '×'],
        [
          'start to first answer, ms',
          middle.ours.toFixed(0),
          middle.empty.toFixed(0),
          (middle.ours / middle.empty).toFixed(2),
        ],
        ['executable, MB', size.toFixed(0), (statSync(empty).size / 1e6).toFixed(0), ''],
        ...memory.map(({ when, resident, own }) => [
          `memory ${when}, MB (private)`,
          `${resident.toFixed(0)} (${own.toFixed(0)})`,
          '',
          '',
        ]),
      ]),
    )
    return { kind: 'start', at: new Date().toISOString(), times, size, memory }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function buildEmpty(folder: string): Promise<string> {
  const source = join(folder, 'empty.ts')
  const outfile = join(folder, 'empty')
  writeFileSync(
    source,
    `Bun.serve({ port: process.env.PORT, hostname: '127.0.0.1', fetch: () => new Response('ok') })`,
  )
  await Bun.build({
    entrypoints: [source],
    target: 'bun',
    minify: true,
    bytecode: true,
    format: 'esm',
    compile: { outfile },
  })
  return outfile
}

async function measureMemory(
  executable: string,
  url: string,
  settings: Record<string, string>,
  requests: number,
) {
  await seed(url, { users: 1000, tasksOf: '20' })
  const users = await signedIn(url, { users: 1000 })
  const service = await startService(executable, url, settings)
  const found: { when: string; resident: number; own: number }[] = []
  const note = (when: string) =>
    found.push({ when, resident: residentMegabytes(service.pid!), own: privateMegabytes(service.pid!) })
  try {
    await Bun.sleep(2000)
    note('at rest')
    const calls = users.map(({ token }) => ({
      method: 'GET',
      path: '/api/v1/tasks?limit=20',
      headers: { authorization: `Bearer ${token}` },
    }))
    let sent = 0
    for (const step of [0.05, 0.25, 0.5, 0.75, 1]) {
      const before = sent
      while (sent < requests * step) sent += (await drive(service.url, calls, 5)).requests
      if (sent > before) note(`after ${sent.toLocaleString('en')} lists`)
    }
    await Bun.sleep(10_000)
    note('10 s later')
  } finally {
    await service.stop()
  }
  return found
}
