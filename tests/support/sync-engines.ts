import { join } from 'node:path'

/** What a user sees of a task in a replica; the version tells whether it is as new as the service's. */
export interface Seen {
  version: number
  title: string
  status: string
  priority: number
}

/** A replica of a user's tasks on a device. */
export interface Device {
  add(id: string, title: string): Promise<void>
  change(id: string, fields: Partial<Omit<Seen, 'version'>>): Promise<void>
  remove(id: string): Promise<void>
  tasks(): Promise<Map<string, Seen>>
  stop(): Promise<void>
}

type Fetch = (request: Request) => Promise<Response>

const retryMs = 50
const example = (path: string) => join(import.meta.dir, '../../examples', path)
export const seen = ({ version, title, status, priority }: Seen): Seen => ({
  version,
  title,
  status,
  priority,
})

async function client(folder: string, url: string, fetch: Fetch) {
  const { default: createClient } = await import(example(`${folder}/node_modules/openapi-fetch`))
  return createClient({ baseUrl: url, fetch })
}

async function rxdb(url: string, fetch: Fetch): Promise<Device> {
  const { createRxDatabase } = await import(example('rxdb/node_modules/rxdb'))
  const { getRxStorageMemory } = await import(example('rxdb/node_modules/rxdb/plugins/storage-memory'))
  const { replicateTasks } = await import(example('rxdb/src/replicate.ts'))
  const { conflictHandler, taskSchema } = await import(example('rxdb/src/task.ts'))
  const database = await createRxDatabase({
    name: crypto.randomUUID(),
    storage: getRxStorageMemory(),
    multiInstance: false,
  })
  const { tasks } = await database.addCollections({ tasks: { schema: taskSchema, conflictHandler } })
  replicateTasks(tasks, await client('rxdb', url, fetch), retryMs)
  const find = (id: string) => tasks.findOne(id).exec()
  return {
    async add(id, title) {
      const fields = { description: null, status: 'pending', priority: 0, due_at: null }
      await tasks.insert({ id, version: 0, title, ...fields })
    },
    change: async (id, fields) => (await find(id))?.incrementalPatch(fields),
    remove: async id => (await find(id))?.incrementalRemove(),
    tasks: async () => new Map((await tasks.find().exec()).map((task: any) => [task.id, seen(task)])),
    stop: () => database.close(),
  }
}

async function tanstackDb(url: string, fetch: Fetch): Promise<Device> {
  const { createCollection } = await import(example('tanstack-db/node_modules/@tanstack/db'))
  const { taskCollectionOptions } = await import(example('tanstack-db/src/collection.ts'))
  const collection = createCollection(taskCollectionOptions(await client('tanstack-db', url, fetch), retryMs))
  collection.startSyncImmediate()
  await collection.stateWhenReady()
  return {
    async add(id, title) {
      collection.insert({ id, version: 0, title, status: 'pending', priority: 0 })
    },
    async change(id, fields) {
      if (collection.has(id)) collection.update(id, (draft: any) => Object.assign(draft, fields))
    },
    async remove(id) {
      if (collection.has(id)) collection.delete(id)
    },
    tasks: async () => new Map(collection.toArray.map((task: any) => [task.id, seen(task)])),
    stop: () => collection.cleanup(),
  }
}

export const engines = { RxDB: rxdb, 'TanStack DB': tanstackDb }
