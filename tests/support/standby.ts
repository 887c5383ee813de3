import { chownSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execute, type PostgresServer, startPostgresServer } from './postgres-server.ts'

/** A primary, and a standby to which every commit is copied before it is answered. */
export async function startPair(): Promise<{ primary: PostgresServer; standby: PostgresServer }> {
  const parameters = ['synchronous_commit=on']
  const primary = await startPostgresServer({ parameters })
  await primary.stop('fast')
  markAsStandby(primary.dataDir)
  const { port, password } = new URL(primary.url)
  const source = `host=127.0.0.1 port=${port} user=postgres password=${password} application_name=standby`
  const standby = await startPostgresServer({
    copyOf: primary,
    parameters: [...parameters, `primary_conninfo=${source}`],
  })
  rmSync(join(primary.dataDir, signalFile))
  await primary.start()
  // Only now: without a standby no commit would ever be answered.
  await execute(primary.url, `alter system set synchronous_standby_names = 'standby'`)
  await execute(primary.url, 'select pg_reload_conf()')
  const until = performance.now() + 20_000
  while ((await execute(primary.url, inStep)).length === 0) {
    if (performance.now() > until) throw new Error('the standby does not follow')
    await Bun.sleep(50)
  }
  return { primary, standby }
}

const inStep = `select 1 from pg_stat_replication where application_name = 'standby' and sync_state = 'sync'`

const signalFile = 'standby.signal'

/** The next start on this cluster is that of a standby: it replays what it is sent and refuses writes. */
export function markAsStandby(dataDir: string) {
  const file = join(dataDir, signalFile)
  writeFileSync(file, '')
  const { uid, gid } = statSync(dataDir)
  chownSync(file, uid, gid)
}

/** Makes a standby take writes; resolves when it does. */
export async function promote(standby: PostgresServer) {
  await execute(standby.url, 'select pg_promote()')
}

/** The address that names both of a pair. */
export function addressOf(first: PostgresServer, second: PostgresServer): string {
  const { password } = new URL(first.url)
  return `postgres://postgres:${password}@127.0.0.1:${first.port},127.0.0.1:${second.port}/postgres`
}
