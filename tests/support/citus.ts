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
  /** Makes another database on all of its servers; returns the coordinator's address of it. */
  createDatabase(name: string): Promise<string>
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
  /** Makes a cluster of a database that all servers have. */
  async function connect(database: string) {
    const [coordinator, ...workers] = servers
    const url = coordinator!.urlOf(database)
    await execute(url, `select citus_set_coordinator_host('127.0.0.1', ${coordinator!.port})`)
    for (const { port } of workers) await execute(url, `select citus_add_node('127.0.0.1', ${port})`)
    const property = `'127.0.0.1', ${coordinator!.port}, 'shouldhaveshards', false`
    await execute(url, `select citus_set_node_property(${property})`)
    return url
  }

  for (let i = 0; i < 3; i++) await startServer()
  const url = await connect('postgres')
  const workers = servers.slice(1)
  return {
    url,
    workers,
    async createDatabase(name) {
      for (const server of servers) await execute(await server.createDatabase(name), 'create extension citus')
      return connect(name)
    },
    async rebalance() {
      const { port } = await startServer()
      await execute(url, `select citus_add_node('127.0.0.1', ${port})`)
      await execute(url, "select rebalance_table_shards(shard_transfer_mode => 'block_writes')")
    },
    async close() {
      await Promise.all(servers.map(server => server.close()))
    },
  }
}
