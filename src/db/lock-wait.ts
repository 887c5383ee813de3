import { databaseError } from './pg-error.ts'

/** While a statement waits for a lock, all other statements on that table wait behind it: it gives up long before they do. */
const shortWait = "set local lock_timeout = '200ms'"

/**
 * PostgreSQL cancels an autovacuum that is in the way, but only for a session that has waited `deadlock_timeout` for it.
 * Every role sees the locks of an autovacuum, and that its process has no user.
 */
const longWaitForAutovacuum = `${shortWait};
  select set_config('lock_timeout', (setting::int + 100)::text, true) from pg_settings
  where name = 'deadlock_timeout' and exists (
    select from pg_locks join pg_stat_activity using (pid)
    where mode = 'ShareUpdateExclusiveLock' and datname = current_database() and usesysid is null
  )`

const lockNotAvailable = '55P03'
const againAfterMs = 2000
const attemptsAMinute = 30

/**
 * Runs a transaction that changes tables again until its locks are free: a dump or a long report may hold them for hours.
 * Its statements are preceded by `lockWait`. `onWait` is called when the first attempt has failed, and each minute.
 */
export async function untilUnlocked<T>(
  transaction: (lockWait: string) => Promise<T>,
  onWait: (error: unknown) => void = () => {},
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const isFirstOfMinute = attempt % attemptsAMinute === 0
    try {
      return await transaction(isFirstOfMinute ? longWaitForAutovacuum : shortWait)
    } catch (error) {
      if (databaseError(error)?.code !== lockNotAvailable) throw error
      if (isFirstOfMinute) onWait(error)
      await Bun.sleep(againAfterMs)
    }
  }
}
