import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The program, `undefined` when it is not installed. */
export const haproxy = Bun.which('haproxy') ?? Bun.which('haproxy', { PATH: '/usr/sbin' }) ?? undefined

/** HAProxy with deploy/haproxy.cfg, listening at `front` before replicas at these ports (three at most). */
export function startHaproxy(front: number, ports: readonly number[]) {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-haproxy-'))
  const config = readFileSync(join(import.meta.dir, '../../deploy/haproxy.cfg'), 'utf8')
    .replace('bind :8080', `bind 127.0.0.1:${front}`)
    .replace(/^ +server \w+ 127\.0\.0\.1:800(\d)\n/gm, (line, number) =>
      ports[number - 1] === undefined ? '' : line.replace(/:800\d/, `:${ports[number - 1]}`),
    )
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(file, config)
  const balancer = Bun.spawn([haproxy!, '-q', '-db', '-f', file], { stdio: ['ignore', 'ignore', 'inherit'] })
  return {
    async stop() {
      balancer.kill()
      await balancer.exited
      rmSync(folder, { recursive: true })
    },
  }
}
