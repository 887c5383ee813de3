/** Runs one statement while no other runs. */
type Run = (statement: string) => Promise<unknown[][]>

const logBytesMax = 64 * 1024 * 1024

/**
 * Does each minute what PostgreSQL's background processes do; the embedded engine has none. Without checkpoints the
 * log grows without bound and recovery after a crash takes long; without `vacuum` and `analyze` dead rows pile up and
 * the planner has no statistics. Returns a function that stops it.
 */
export function startMaintenance(run: Run, everyMs = 60_000): () => void {
  let underWay = false
  const round = async () => {
    if (underWay) return
    underWay = true
    // A failed round is repeated by the next one. A broken engine is reported by the statements of requests.
    await runMaintenance(run).catch(() => {})
    underWay = false
  }
  const timer = setInterval(round, everyMs).unref()
  return () => clearInterval(timer)
}

/** One round, in short steps: other statements get their turn in between. */
export async function runMaintenance(run: Run): Promise<void> {
  // First, because it frees space, for which a vacuum may be refused.
  const [[logBytes] = []] = await run(logSinceCheckpoint)
  if (Number(logBytes) > logBytesMax) await run('checkpoint')
  for (const [vacuum] of await run(worthVacuuming)) await run(String(vacuum))
}

/**
 * The thresholds are those of PostgreSQL's autovacuum; and tables with rows that were never analyzed (`reltuples` -1). Every
 * `analyze` leaves dead rows in the system catalogs, which have no need of it themselves.
 */
const worthVacuuming = `
  select format('vacuum %s%I.%I', case schemaname when 'public' then '(analyze) ' end, schemaname, s.relname)
  from pg_stat_all_tables s join pg_class c on c.oid = relid
  where n_dead_tup > 50 + 0.2 * n_live_tup or age(relfrozenxid) > 200000000
    or schemaname = 'public'
      and (n_mod_since_analyze > 50 + 0.1 * n_live_tup or (reltuples < 0 and pg_relation_size(relid) > 0))`

const logSinceCheckpoint = `
  select pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn) from pg_control_checkpoint()`
