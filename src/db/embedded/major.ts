import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The major version of the embedded PostgreSQL. It opens no cluster of another one. */
export const postgresMajor = '18'

/** The major version of the PostgreSQL that made a cluster. */
export const majorOf = (cluster: string): string => readFileSync(join(cluster, 'PG_VERSION'), 'utf8').trim()

/** A cluster of another PostgreSQL, and what to do. */
export class OtherMajorError extends Error {
  override readonly name = 'OtherMajorError'

  constructor(
    readonly about: string,
    readonly cure: string,
  ) {
    super(`${about}: ${cure}`)
  }
}

/** Throws before anything in the folder is touched. A folder without a cluster passes. */
export function requireSameMajor(cluster: string): void {
  const major = existsSync(join(cluster, 'PG_VERSION')) ? majorOf(cluster) : postgresMajor
  if (major === postgresMajor) return
  throw new OtherMajorError(
    `the database in ${cluster} is of PostgreSQL ${major}, and this todo-api has ${postgresMajor}`,
    Number(major) < Number(postgresMajor)
      ? 'write its data to a file with the version of todo-api that made it (todo-api export FILE) and import FILE into a new DATA_DIR, or restore a backup that BACKUP_EVERY made'
      : 'use the newer todo-api that made it',
  )
}
