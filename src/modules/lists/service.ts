import { and, count, eq, or, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import {
  afterCursor,
  countRows,
  orderKeys,
  type Page,
  type PageRow,
  page,
  pageSizeDefault,
  readPage,
} from '../../db/page.ts'
import { listTombstones, own } from '../../db/tables.ts'
import { createVersionReader, takeVersion, writeInTurn, writeTombstones } from '../../db/versions.ts'
import type { Precondition } from '../../http/entity-tag.ts'
import { createCursors } from '../../lib/cursor.ts'
import { AppError } from '../../lib/errors.ts'
import { createIdempotency } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import { findOwn, findPrior, type Serialized, throwMissing } from '../tasks/owned.ts'
import { changeTasks } from '../tasks/sub-tasks.ts'
import { isLive, isTrashed, tasks } from '../tasks/table.ts'
import type { List, ListCreate, ListsQuery, ListUpdate } from './model.ts'
import { lists } from './table.ts'

export type ListService = ReturnType<typeof createListService>

interface Parts {
  db: Db
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

const listsMax = 500

const serialized = { version: lists.version, json: lists.json }
const order = orderKeys([lists.position, lists.id], { isDescending: false })

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

  return {
    /** A page of the user's lists. Throws `validation_failed` for a cursor that is not from here, or with an offset. */
    async list(userId: UserId, query: ListsQuery): Promise<Page> {
      const { limit = pageSizeDefault, offset = 0, counts } = query
      const cursor = cursors.read('lists', userId, query)
      const isOwn = eq(lists.userId, userId)
      const statement = page({
        from: lists,
        where: and(isOwn, afterCursor(order, cursor && JSON.parse(cursor)))!,
        order,
        item: counts ? counted(userId) : undefined,
        pageSize: sql`${limit}::int`,
        offset,
        lastVersionOf: sql`${userId}::uuid`,
      })
      return readPage(
        db.execute<PageRow>(statement),
        last => cursors.sign('lists', userId, last),
        query.total ? countRows(db, lists, isOwn, userId) : undefined,
      )
    },

    /** The `version` that such a page has now, without reading it. Throws as `list` does. */
    async listVersion(userId: UserId, query: ListsQuery): Promise<number | undefined> {
      cursors.read('lists', userId, query)
      return (await readVersions(userId))?.lastVersion
    },

    /** One list. Throws `list_not_found`, or `not_authorized` when it is another user's. */
    async read(userId: UserId, id: string, counts = false): Promise<Serialized> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      const json = counts ? counted(userId) : lists.json
      const [list] = await db
        .select({ version: lists.version, json })
        .from(lists)
        .where(own(lists, userId, id))
      return list ?? throwMissing(db, 'list', userId, id)
    },

    /**
     * Creates a list. With an id or a key that was sent before, it creates none and returns the first, as it is now. Throws
     * `too_many_lists`; `id_used` or `idempotency_key_used` when the first was deleted; `idempotency_key_reused`.
     */
    create(userId: UserId, input: ListCreate, key?: string): Promise<Serialized & { id: string }> {
      const { name, position = '' } = input
      const creation = identify(userId, {
        id: input.id,
        key,
        request: () => JSON.stringify([name, position]),
      })
      const { id, mayExist, requestHash } = creation
      return writeInTurn(db, userId, async tx => {
        const prior = mayExist && (await findPrior(tx, 'list', userId, creation))
        if (prior) return prior
        const [existing] = await tx.select({ count: count() }).from(lists).where(eq(lists.userId, userId))
        if (existing!.count >= listsMax) throw new AppError('too_many_lists')
        const [list] = await tx
          .insert(lists)
          .values({ id, userId, name, position, requestHash, version: await takeVersion(tx, userId) })
          .returning(serialized)
        return { id, ...list! }
      })
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(
      userId: UserId,
      id: string,
      input: ListUpdate,
      precondition: Precondition,
    ): Promise<Serialized> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      return writeInTurn(db, userId, async tx => {
        const found = await findOwn(tx, 'list', userId, id, precondition)
        const before: List = JSON.parse(found.json)
        const { name = before.name, position = before.position } = input
        if (name === before.name && position === before.position) return found
        const [list] = await tx
          .update(lists)
          .set({ name, position, updatedAt: sql`now()`, version: await takeVersion(tx, userId) })
          .where(own(lists, userId, id))
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
      precondition: Precondition,
    ): Promise<void> {
      if (!isUuid(id)) throw new AppError('list_not_found')
      await writeInTurn(db, userId, async tx => {
        await findOwn(tx, 'list', userId, id, precondition)
        const isInside = eq(tasks.listId, id)
        if (becomes === 'keep') {
          await changeTasks(tx, userId, isInside, { listId: sql`null`, updatedAt: sql`now()` })
        } else {
          // Tasks in the trash keep their `deleted_at`: by it a restore finds the children that went there with them.
          await changeTasks(tx, userId, and(isInside, isTrashed), { listId: sql`null` })
          // A task takes its children along, from whatever list.
          const parents = tx
            .select({ id: tasks.id })
            .from(tasks)
            .where(and(isInside, eq(tasks.userId, userId)))
          const isChild = sql`${tasks.parentId} = any (array(${parents}))`
          await changeTasks(tx, userId, and(isLive, or(isInside, isChild)), {
            listId: sql`nullif(${tasks.listId}, ${id}::uuid)`,
            deletedAt: sql`now()`,
          })
        }
        // The tasks first: a client that follows the changes learns of them before the list is gone.
        await writeTombstones(tx, listTombstones, [{ id, userId, version: await takeVersion(tx, userId) }])
        await tx.delete(lists).where(own(lists, userId, id))
      })
    },
  }
}
