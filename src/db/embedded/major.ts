import { lstatSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** The major version of the embedded PostgreSQL. It opens no cluster of another one. */
export const postgresMajor = '18'

/** The file with the major version. It is never written again, so it stands for the cluster. */
export const versionFile = (cluster: string): string => join(cluster, 'PG_VERSION')

/** The major version of the PostgreSQL that made a cluster. */
export const majorOf = (cluster: string): string => readFileSync(versionFile(cluster), 'utf8').trim()

/** A cluster that cannot be opened as it is, and what to do. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError'

  constructor(
    readonly about: string,
    readonly cure: string,
  ) {
    super(`${about}: ${cure}`)
  }
}

/** Throws before anything in the folder is touched. */
export function requireUsable(cluster: string): void {
  if (lstatSync(cluster, { throwIfNoEntry: false })?.isSymbolicLink())
    throw new ClusterError(
      `${cluster} is a link, and only ${dirname(cluster)} is locked`,
      'make DATA_DIR the link',
    )
  const major = majorIfReadable(cluster)
  // PGlite would make a new database over the files of this one.
  if (!/^\d+$/.test(major)) {
    throw new ClusterError(
      `the database in ${cluster} is incomplete (PG_VERSION is missing or damaged)`,
      'copy it again if it is a copy, or restore a backup (todo-api restore --force FILE); delete the folder if it is empty',
    )
  }
  if (major === postgresMajor) return
  throw new ClusterError(
    `the database in ${cluster} is of PostgreSQL ${major}, and this todo-api has ${postgresMajor}`,
    Number(major) < Number(postgresMajor)
      ? 'write its data to a file with the version of todo-api that made it (todo-api export FILE) and import FILE into a new DATA_DIR, or restore a backup that BACKUP_EVERY made'
      : 'use the newer todo-api that made it',
  )
}

/** Empty without the file, or without a folder. */
function majorIfReadable(cluster: string): string {
  try {
    return majorOf(cluster)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') throw notOurs(cluster, message)
    return ''
  }
}

/** A database with files that another user has made, root mostly. So may be those beside it in DATA_DIR, such as the lock. */
export function notOurs(cluster: string, reason: string): ClusterError {
  const user = process.geteuid?.()
  return new ClusterError(
    `user ${user} may not read all of the database in ${cluster} (${reason})`,
    `chown -R ${user} ${dirname(cluster)}`,
  )
}
