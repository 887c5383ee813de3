import { and, count, desc, eq, isNull, or, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { afterCursor, countRows, type Page, type PageRow, page, readPage } from '../../db/page.ts'
import { listTombstones } from '../../db/tables.ts'
import { createVersionReader, writeInTurn, writeTombstones } from '../../db/versions.ts'
import { AppError } from '../../lib/errors.ts'
import { alreadyUsed, type Creation, createIdempotency, keyReused } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import { createCursors, wrongCursor, wrongParameter } from '../tasks/cursor.ts'
import { changeTasks } from '../tasks/families.ts'
import { tasks } from '../tasks/table.ts'
import type { ListCreate, ListsQuery, ListUpdate } from './model.ts'
import { lists } from './table.ts'

export type ListService = ReturnType<typeof createListService>

interface Parts {
  db: Db
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

/** A list that can be sent as it is. */
export interface SerializedList {
  version: number
  json: string
}

const listsMax = 500

const serialized = { version: lists.version, json: lists.json }
const order = [lists.position, lists.id].map(column => ({ by: sql`${column}`, isDescending: false }))
const own = (userId: UserId, id: string) => and(eq(lists.id, id), eq(lists.userId, userId))

/** A list as JSON, with the numbers of its live tasks. The builder leaves out a column's table where it reads one alone. */
const counted = (userId: UserId) => sql<string>`left(${lists}.json, -1) || (
  select ',"open":' || count(*) filter (where ${tasks}.status <> 'completed') || ',"total":' || count(*) || '}'
  from ${tasks} where ${tasks}.user_id = ${userId} and ${tasks}.list_id = ${lists}.id and ${tasks}.deleted_at is null)`

/**
 * Lists of tasks. They are few and rarely change, so each change is a short transaction that holds the user's versions:
 * until it ends, no other writer changes the user's lists and tasks.
 */
export function createListService({ db, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const readVersions = createVersionReader(db)
  const identify = createIdempotency(secretKey, 'idempotency of lists')

  function readPlace(userId: UserId, { cursor, offset = 0 }: ListsQuery): SQL | undefined {
    if (cursor === undefined) return undefined
    if (offset > 0) throw wrongParameter('offset', 'not_combinable', 'Use either offset or cursor')
    const content = cursors.verify('lists', userId, cursor)
    if (content === undefined) throw wrongCursor('cursor')
    const [position, id] = JSON.parse(content)
    return afterCursor(order, [sql`${position}::text`, sql`${id}::uuid`])
  }

  /** The list before a change. Throws as `read` does, and `precondition_failed`. */
  async function find(tx: Db, userId: UserId, id: string, ifMatch: string[] | null) {
    const [list] = await tx
      .select({ ...serialized, name: lists.name, position: lists.position })
      .from(lists)
      .where(own(userId, id))
    if (!list) return throwMissing(tx, userId, id)
    if (ifMatch && !ifMatch.includes(`${list.version}`))
      throw new AppError('precondition_failed', {
        detail: 'The list has changed since',
        current: JSON.parse(list.json),
      })
    return list
  }

  /** The list that the same request has created before. Throws when it was deleted, or the key came with another request. */
  async function findPrior(tx: Db, userId: UserId, creation: Creation): Promise<SerializedList | undefined> {
    const { id, requestHash } = creation
    const isRepeat = sql<boolean>`coalesce(${lists.requestHash} = ${requestHash}, true)`
    const [prior] = await tx
      .select({ ...serialized, isRepeat })
      .from(lists)
      .where(own(userId, id))
    if (prior && !prior.isRepeat) throw keyReused()
    if (prior) return prior
    const ofId = and(eq(listTombstones.id, id), eq(listTombstones.userId, userId))
    const [tombstone] = await tx.select({ id: listTombstones.id }).from(listTombstones).where(ofId)
    if (tombstone) throw alreadyUsed(creation)
    return undefined
  }

  return {
    /** A page of the user's lists. Throws `validation_failed` for a cursor that is not from here, or with an offset. */
    async list(userId: UserId, query: ListsQuery): Promise<Page> {
      const { limit = 50, offset = 0 } = query
      const isOwn = eq(lists.userId, userId)
      const where = and(isOwn, readPlace(userId, query))!
      const size = {
        pageSize: sql`${limit}::int`,
        limit: sql`${limit + 1}::int`,
        offset: sql`offset ${offset}`,
        lastVersionOf: sql`${userId}::uuid`,
      }
      const item = query.counts ? counted(userId) : sql`${lists.json}`
      return readPage(
        db.execute<PageRow>(page({ from: lists, where, order, item, ...size })),
        last => cursors.sign('lists', userId, last),
        query.total ? countRows(db, lists, isOwn, userId) : undefined,
      )
    },

    /** The `version` that such a page has now, without reading it. Throws as `list` does. */
    async listVersion(userId: UserId, query: ListsQuery): Promise<number | undefined> {
      readPlace(userId, query)
      return (await readVersions(userId))?.lastVersion
    },

    /** One list. Throws `list_not_found`, or `not_authorized` when it is another user's. */
    async read(userId: UserId, id: string, counts = false): Promise<SerializedList> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      const json = counts ? counted(userId) : lists.json
      const [list] = await db.select({ version: lists.version, json }).from(lists).where(own(userId, id))
      return list ?? throwMissing(db, userId, id)
    },

    /**
     * Creates a list. With an id or a key that was sent before, it creates none and returns the first, as it is now. Throws
     * `too_many_lists`; `id_used` or `idempotency_key_used` when the first was deleted; `idempotency_key_reused`.
     */
    create(userId: UserId, input: ListCreate, key?: string): Promise<SerializedList & { id: string }> {
      const { name, position = '' } = input
      const creation = identify(userId, {
        id: input.id,
        key,
        request: () => JSON.stringify([name, position]),
      })
      const { id, mayExist, requestHash } = creation
      return writeInTurn(db, userId, async (tx, versions) => {
        const prior = mayExist ? await findPrior(tx, userId, creation) : undefined
        if (prior) return { id, ...prior }
        const [existing] = await tx.select({ count: count() }).from(lists).where(eq(lists.userId, userId))
        if (existing!.count >= listsMax) throw new AppError('too_many_lists')
        const [list] = await tx
          .insert(lists)
          .values({ id, userId, name, position, requestHash, version: ++versions.lastVersion })
          .returning(serialized)
        return { id, ...list! }
      })
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(
      userId: UserId,
      id: string,
      input: ListUpdate,
      ifMatch: string[] | null,
    ): Promise<SerializedList> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      return writeInTurn(db, userId, async (tx, versions) => {
        const found = await find(tx, userId, id, ifMatch)
        const { name = found.name, position = found.position } = input
        if (name === found.name && position === found.position) return found
        const [list] = await tx
          .update(lists)
          .set({ name, position, updatedAt: sql`now()`, version: ++versions.lastVersion })
          .where(own(userId, id))
          .returning(serialized)
        return list!
      })
    },

    /**
     * Deletes a list, and moves its tasks to the inbox or to the trash; what was in the trash stays there, without the
     * list. Throws as `update` does.
     */
    async remove(
      userId: UserId,
      id: string,
      becomes: 'keep' | 'trash',
      ifMatch: string[] | null,
    ): Promise<void> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      await writeInTurn(db, userId, async (tx, versions) => {
        await find(tx, userId, id, ifMatch)
        const isInside = eq(tasks.listId, id)
        if (becomes === 'keep') {
          await changeTasks(tx, versions, userId, isInside, { listId: sql`null`, updatedAt: sql`now()` })
        } else {
          // A task takes its children along into the trash, from whatever list.
          const parents = tx
            .select({ id: tasks.id })
            .from(tasks)
            .where(and(isInside, eq(tasks.userId, userId), isNull(tasks.deletedAt)))
          const isChild = and(isNull(tasks.deletedAt), sql`${tasks.parentId} = any (array(${parents}))`)
          await changeTasks(tx, versions, userId, or(isInside, isChild), {
            listId: sql`nullif(${tasks.listId}, ${id}::uuid)`,
            deletedAt: sql`coalesce(${tasks.deletedAt}, now())`,
          })
        }
        // The tasks first: a client that follows the changes never has a task in a list that is gone.
        await writeTombstones(tx, listTombstones, [{ id, userId, version: ++versions.lastVersion }])
        await tx.delete(lists).where(own(userId, id))
      })
    },
  }
}

/** Throws why a user cannot have a list, as for a task (tasks/statements.ts). */
async function throwMissing(db: Db, userId: UserId, id: string): Promise<never> {
  const isOwn = sql<boolean>`${lists.userId} = ${userId}::uuid`
  const [list] = await db.select({ isOwn }).from(lists).where(eq(lists.id, id)).orderBy(desc(isOwn)).limit(1)
  throw new AppError(list && !list.isOwn ? 'not_authorized' : 'list_not_found')
}
