import { and, eq, inArray, isNotNull, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { listTombstones, own, type Tombstones, taskTombstones } from '../../db/tables.ts'
import { noPrecondition, type Precondition } from '../../http/entity-tag.ts'
import { AppError } from '../../lib/errors.ts'
import { alreadyUsed, type Creation, keyReused } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import { lists } from '../lists/table.ts'
import { tasks } from './table.ts'

/**
 * What a change of a task or a list looks at before it writes. Both belong to a user, under an id that the client may have
 * chosen, and have a version.
 */
const tables = {
  task: {
    rows: tasks,
    tombstones: taskTombstones,
    missing: 'task_not_found',
    changed: 'precondition_failed',
  },
  list: {
    rows: lists,
    tombstones: listTombstones,
    missing: 'list_not_found',
    changed: 'list_changed',
  },
} as const
export type Kind = keyof typeof tables

/** A task or a list that can be sent as it is. */
export interface Serialized {
  version: number
  /** What `task` or `list` of the models describes. */
  json: string
}

type Table = typeof tasks | typeof lists | Tombstones

/** The condition for these rows of the user. */
const ownOf = ({ id, userId }: Table, owner: UserId, wanted: string[]) =>
  and(inArray(id, wanted), eq(userId, owner))

/**
 * Throws why a user cannot have a row: another user's is 403; none, or one in the trash, 404. The one query without the
 * user, because two users may have chosen one id: it reveals nothing else.
 */
export async function throwMissing(db: Db, kind: Kind, userId: UserId, id: string): Promise<never> {
  const { rows, missing } = tables[kind]
  const isOwn = sql<boolean | null>`bool_or(${rows.userId} = ${userId}::uuid)`
  const [found] = await db.select({ isOwn }).from(rows).where(eq(rows.id, id))
  throw new AppError(found!.isOwn === false ? 'not_authorized' : missing)
}

/** Only this version, if one is named. */
export const ifVersion = (version: number | undefined): Precondition =>
  version === undefined ? noPrecondition : { ifMatch: [`${version}`], ifNoneMatch: null }

/**
 * The row before a change, which meets the condition. Throws as `throwMissing` does if there is none, and
 * `precondition_failed`, with the row as it is now, if the change does not accept its version.
 */
export async function findOwn(
  tx: Db,
  kind: Kind,
  userId: UserId,
  id: string,
  { ifMatch, ifNoneMatch }: Precondition,
  condition?: SQL,
): Promise<Serialized> {
  const { rows, changed } = tables[kind]
  const [found] = await tx
    .select({ version: rows.version, json: rows.json })
    .from(rows)
    .where(and(own(rows, userId, id), condition))
    .prepare(`find_${kind}`)
    .execute()
  if (!found) return throwMissing(tx, kind, userId, id)
  const version = `${found.version}`
  if ((ifMatch && !ifMatch.includes(version)) || ifNoneMatch?.includes(version))
    throw new AppError(changed, { current: JSON.parse(found.json) })
  return found
}

/**
 * What the same request has created before, as it is now. Throws `id_used` or `idempotency_key_used` when that is in the
 * trash or was deleted permanently, and `idempotency_key_reused` when its key came with another request. What was created
 * without a key accepts any request.
 */
export async function findPrior(db: Db, kind: Kind, userId: UserId, creation: Creation) {
  const [prior] = await findPriors(db, kind, userId, [creation])
  if (prior instanceof AppError) throw prior
  return prior
}

/** For each of several requests what it has created before, what `findPrior` throws, or `undefined`. */
export async function findPriors(db: Db, kind: Kind, userId: UserId, creations: Creation[]) {
  const { rows, tombstones } = tables[kind]
  const ids = creations.map(({ id }) => id)
  const isDeleted = 'deletedAt' in rows ? isNotNull(rows.deletedAt) : sql`false`
  const found = await db
    .select({
      id: rows.id,
      version: rows.version,
      json: rows.json,
      requestHash: rows.requestHash,
      isTrashed: sql<boolean>`${isDeleted}`,
    })
    .from(rows)
    .where(ownOf(rows, userId, ids))
  const priors = new Map(found.map(row => [row.id, row]))
  const isMissing = priors.size < creations.length
  const gone = isMissing
    ? await db
        .select({ id: tombstones.id })
        .from(tombstones)
        .where(ownOf(tombstones, userId, ids))
    : []
  const deleted = new Set(gone.map(({ id }) => id))
  return creations.map(creation => {
    const { id, requestHash } = creation
    const prior = priors.get(id)
    if (prior ? prior.isTrashed : deleted.has(id)) return alreadyUsed(creation)
    const isAnother = requestHash && prior?.requestHash && requestHash !== prior.requestHash
    return isAnother ? keyReused() : prior
  })
}

/** Whether the user has all of these lists. */
export async function hasLists(db: Db, userId: UserId, ids: string[]): Promise<boolean> {
  const wanted = new Set(ids.map(id => id.toLowerCase()))
  if (wanted.size === 0) return true
  const found = await db
    .select({ id: lists.id })
    .from(lists)
    .where(ownOf(lists, userId, [...wanted]))
  return found.length === wanted.size
}
