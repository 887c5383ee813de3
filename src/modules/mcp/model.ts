import { t } from 'elysia'
import { idempotencyHeader } from '../../http/idempotency-key.ts'
import { nullable } from '../../http/schema.ts'
import { list, listsQuery } from '../lists/model.ts'
import {
  listQuery,
  operationVersion,
  stats,
  statsQuery,
  task,
  taskCreate,
  taskUpdate,
} from '../tasks/model.ts'
import { asArguments } from './tool-schema.ts'

/** The arguments and results of the tools, made of the schemas of tasks and lists. */

const id = t.String()
const version = operationVersion
const cursor = nullable(t.String())

/** Pages are read by `cursor` alone, and there is no header for a total. */
const notForAssistants = ['offset', 'total'] as const

export const findArguments = asArguments(t.Omit(listQuery, notForAssistants))
export const listsArguments = asArguments(t.Omit(listsQuery, notForAssistants))
export const statsArguments = asArguments(statsQuery)
export const oneTask = t.Object({ id })
export const oneTaskAsExpected = t.Object({ id, version })
export const updateArguments = t.Object({ id, version, ...taskUpdate.properties })
export const addArguments = t.Object({
  // In place of ids of their own, assistants send a key.
  tasks: t.Array(asArguments(t.Omit(taskCreate, ['id'])), { minItems: 1, maxItems: 50 }),
  key: idempotencyHeader.properties['idempotency-key'],
})

/** What the next call needs of a task. Its other fields come along, as the API returns them. */
export const taskResult = t.Object({ id, version: task.properties.version })
export const tasksResult = t.Object({ tasks: t.Array(taskResult) })
export const pageResult = t.Object({ tasks: t.Array(taskResult), cursor })
export const listsResult = t.Object({ lists: t.Array(t.Object({ id, name: list.properties.name })), cursor })
export const deletedResult = t.Object({ deleted: t.Array(id) })
export const statsResult = t.Object(stats.properties)
