import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { haproxy } from './support/load-balancers.ts'
import { freePort, isListening } from './support/ports.ts'
import { until } from './support/until.ts'

if (!haproxy.isInstalled) {
  process.stderr.write('\nNOT RUN: uploads through HAProxy with HTTP/2, because there is none in PATH.\n')
}

/** HAProxy shares its connections to the service between all clients. */
describe.skipIf(!haproxy.isInstalled)('behind HAProxy with HTTP/2', () => {
  let service: Running
  let balancer: ReturnType<typeof haproxy.start>
  let front: number

  beforeAll(async () => {
    service = await startExecutable({ ENVIRONMENT: 'test', BCRYPT_COST: '4', TRUSTED_PROXIES: '127.0.0.1' })
    await untilReady(service)
    front = await freePort()
    balancer = haproxy.start(front, [Number(new URL(service.url).port)], ' proto h2')
    await until(() => isListening(front))
  }, 30_000)

  afterAll(async () => {
    await balancer?.stop()
    await service?.stop()
  })

  /** The status of a request on a connection of its own, by a client that stops an upload when it is refused. */
  async function curl(path: string, headers: string[], input?: Uint8Array) {
    const upload = input ? ['--data-binary', '@-'] : []
    const child = Bun.spawn(
      [
        ...['curl', '--silent', '--http2-prior-knowledge', '--max-time', '3', '--output', '/dev/null'],
        ...['--write-out', '%{http_code}', ...headers.flatMap(header => ['--header', header]), ...upload],
        `http://127.0.0.1:${front}/api/v1${path}`,
      ],
      { stdin: input ?? 'ignore', stdout: 'pipe', stderr: 'inherit' },
    )
    return Number(await child.stdout.text())
  }

  const body = (bytes: number) => new Uint8Array(bytes).fill(0x78)
  const json = 'content-type: application/json'
  test.each<{ name: string; headers: string[]; input: Uint8Array }>([
    { name: 'is read', headers: [json], input: body(900_000) },
    { name: 'is too large to be read', headers: [json], input: body(2_200_000) },
    { name: 'has no end', headers: [json, 'transfer-encoding: chunked'], input: body(2_200_000) },
  ])(
    'a request is not taken for the rest of a refused upload that $name',
    async ({ headers, input }) => {
      const { token } = await service.user()
      const statuses = new Set<number>()
      for (let i = 0; i < 12; i++) {
        await curl('/tasks', headers, input)
        statuses.add(await curl('/users/me', [`authorization: Bearer ${token}`]))
      }

      expect([...statuses]).toEqual([200])
      // Also one that was read as far as the limit.
      expect(await curl('/tasks', headers, input.subarray(0, 900_000))).toBe(401)
    },
    60_000,
  )
})
