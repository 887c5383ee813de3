/** Runs one statement when no other runs. */
type Run = (statement: string) => Promise<unknown[][]>

const everyMs = 60_000
const logBytesMax = 64 * 1024 * 1024

/**
 * Does what PostgreSQL's background processes do and the embedded engine, which has none, does not: without
 * checkpoints the log grows for ever and a restart after a crash takes long; without `vacuum` and `analyze` changed
 * rows pile up and queries are planned blind. Gives a function that stops it.
 */
export function keepTidy(run: Run, mayWork: () => boolean): () => void {
  let busy = false
  const timer = setInterval(async () => {
    if (busy || !mayWork()) return
    busy = true
    await tidy(run).catch(() => {})
    busy = false
  }, everyMs)
  timer.unref()
  return () => clearInterval(timer)
}

/** One round, in short steps: other statements get their turn in between. */
export async function tidy(run: Run): Promise<void> {
  // Counts of changed rows are held back for up to a second.
  await run('select pg_stat_force_next_flush()')
  for (const [vacuum] of await run(worthVacuuming)) await run(String(vacuum))
  const [[logBytes] = []] = await run(logSinceCheckpoint)
  if (Number(logBytes) > logBytesMax) await run('checkpoint')
}

/** The thresholds are those of PostgreSQL's autovacuum. */
const worthVacuuming = `
  select format('vacuum (analyze) %I.%I', schemaname, relname) from pg_stat_user_tables
  where n_dead_tup > 50 + 0.2 * n_live_tup or n_mod_since_analyze > 50 + 0.1 * n_live_tup`

const logSinceCheckpoint = `
  select pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn) from pg_control_checkpoint()`
