import type { Db } from '../../db/drizzle.ts'
import { throwVersionless, writeInTurn } from '../../db/versions.ts'
import { alreadyUsed, type Creation, createIdempotency, keyReused } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import type { TaskCreate } from './model.ts'
import { throwMisplaced } from './placement.ts'
import { requestText, type SerializedTask, toNewColumns } from './rows.ts'
import { createStatements, type Statements } from './statements.ts'

interface Parts {
  db: Db
  statements: Statements
  /** Makes ids of idempotency keys. */
  secretKey: string
}

export function createInsertion({ db, statements, secretKey }: Parts) {
  const identify = createIdempotency(secretKey, 'idempotency')

  /**
   * Creates a task. With an id or a key that was sent before, it creates none and returns the first task, as it is now.
   * Throws `invalid_token` when the account was deleted since the token was checked, `id_used` or `idempotency_key_used`
   * when the first task is in the trash or was deleted permanently, `idempotency_key_reused` when the key came with
   * another request.
   */
  return async function create(
    userId: UserId,
    input: TaskCreate,
    key?: string,
  ): Promise<SerializedTask & { id: string }> {
    const creation = identify(userId, { id: input.id, key, request: () => requestText(input) })
    const { id, requestHash } = creation
    const values = { id, user: userId, request_hash: requestHash, ...toNewColumns(input) }
    const insert = async (on: Statements) =>
      creation.mayExist
        ? insertOnce(on, creation, values)
        : (await on.insert.execute(values).catch(throwMisplaced))[0]
    // No row: the user made another change at the same time, the account is gone, or its rows are moving to another server
    // of a cluster. With the lock held it is known which.
    const task =
      (await insert(statements)) ?? (await writeInTurn(db, userId, tx => insert(createStatements(tx))))
    if (!task) return throwVersionless(db, userId)
    return { id, ...task }
  }
}

/** Creates a task, or returns the one that the same request has created before; `undefined` as `insertOnce` says. */
async function insertOnce(
  { insertOnce, prior, tombstone }: Statements,
  creation: Creation,
  values: Record<string, unknown>,
): Promise<SerializedTask | undefined> {
  const [made] = await insertOnce.execute(values).catch(throwMisplaced)
  if (made) return made
  const [found] = await prior.execute(values)
  const isGone = found ? found.isTrashed : (await tombstone.execute(values)).length > 0
  if (isGone) throw alreadyUsed(creation)
  if (found && !found.isRepeat) throw keyReused()
  return found
}
