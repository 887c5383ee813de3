import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const haproxy = loadBalancer('HAProxy', 'haproxy', 'haproxy.cfg', (config, folder) => {
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(file, config)
  return ['-q', '-db', '-f', file]
})

export const nginx = loadBalancer('nginx', 'nginx', 'nginx.conf', (config, folder) => {
  const file = join(folder, 'nginx.conf')
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    name => `${name}_temp_path ${folder}/${name};`,
  )
  const main = `daemon off; pid ${folder}/pid; events {} http { access_log off; ${paths.join(' ')}\n${config}\n}`
  writeFileSync(file, process.getuid?.() === 0 ? `user root; ${main}` : main)
  return ['-p', folder, '-e', 'stderr', '-c', file]
})

/** A program with an example in deploy/; `write` puts the configuration into a folder and returns the program's arguments. */
function loadBalancer(
  name: string,
  command: string,
  example: string,
  write: (config: string, folder: string) => string[],
) {
  const program = Bun.which(command) ?? Bun.which(command, { PATH: '/usr/sbin' })
  return {
    name,
    isInstalled: program !== null,
    /** Starts it at the port `front`, before replicas at `ports` (three at most); `protocol` is what `bind` has for HTTP/2. */
    start(front: number, ports: readonly number[], protocol = '') {
      const folder = mkdtempSync(join(tmpdir(), `todo-api-${command}-`))
      const config = readFileSync(join(import.meta.dir, '../../deploy', example), 'utf8')
        .replace(/^( *(?:bind|listen) ):?8080\b/m, `$1127.0.0.1:${front}${protocol}`)
        .replace(/^ +server .*127\.0\.0\.1:800(\d).*\n/gm, (line, number) =>
          ports[number - 1] === undefined ? '' : line.replace(/:800\d/, `:${ports[number - 1]}`),
        )
      const child = Bun.spawn([program!, ...write(config, folder)], {
        stdio: ['ignore', 'ignore', 'inherit'],
      })
      return {
        async stop() {
          child.kill()
          await child.exited
          rmSync(folder, { recursive: true })
        },
      }
    },
  }
}
