import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { execute, type PostgresServer, startPostgresServer } from './postgres-server.ts'

/** The programs of an installed PostgreSQL that has Citus; `undefined` where there is none. */
export const citusPrograms = [15, 16, 17, 18]
  .map(version => `/usr/lib/postgresql/${version}`)
  .filter(folder => existsSync(join(folder, 'lib/citus.so')))
  .map(folder => join(folder, 'bin'))[0]

/** A cluster on this machine: a coordinator without shards, and workers. */
export interface CitusCluster {
  /** The address of the coordinator's database. */
  url: string
  workers: PostgresServer[]
  /** Starts one more worker, and moves a share of the shards to it while the cluster serves. */
  rebalance(): Promise<void>
  close(): Promise<void>
}

const parameters = [
  'shared_preload_libraries=citus',
  'wal_level=logical',
  'max_prepared_transactions=200',
  'max_worker_processes=24',
  'citus.shard_count=16',
  'citus.node_conninfo=sslmode=disable',
]
/** The servers call each other without passwords. */
const files = { 'pg_hba.conf': 'host all all 127.0.0.1/32 trust\n' }

export async function startCitus(): Promise<CitusCluster> {
  const servers: PostgresServer[] = []
  async function startServer() {
    const server = await startPostgresServer({ parameters, files, bin: citusPrograms! })
    servers.push(server)
    await execute(server.url, 'create extension citus')
    return server
  }
  async function addWorker(coordinator: PostgresServer) {
    const worker = await startServer()
    await execute(coordinator.url, `select citus_add_node('127.0.0.1', ${worker.port})`)
    return worker
  }

  const coordinator = await startServer()
  const { url, port } = coordinator
  await execute(url, `select citus_set_coordinator_host('127.0.0.1', ${port})`)
  const workers = [await addWorker(coordinator), await addWorker(coordinator)]
  await execute(url, `select citus_set_node_property('127.0.0.1', ${port}, 'shouldhaveshards', false)`)
  return {
    url,
    workers,
    async rebalance() {
      workers.push(await addWorker(coordinator))
      await execute(url, "select rebalance_table_shards(shard_transfer_mode => 'block_writes')")
    },
    async close() {
      await Promise.all(servers.map(server => server.close()))
    },
  }
}
