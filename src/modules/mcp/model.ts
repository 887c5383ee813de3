import { t } from 'elysia'
import { nullable } from '../../http/schema.ts'
import {
  idempotencyHeader,
  listQuery,
  operationVersion,
  stats,
  statsQuery,
  task,
  taskCreate,
  taskUpdate,
} from '../tasks/model.ts'
import { asArguments } from './tool-schema.ts'

/** The arguments and results of the tools, made of the schemas of the tasks. */

const id = t.String()
const version = operationVersion

// Their counterpart is `cursor`, and no header tells a total.
const { offset: _, total: __, ...filters } = listQuery.properties
export const findArguments = t.Object(asArguments(filters))

export const oneTask = t.Object({ id })
export const oneTaskAsExpected = t.Object({ id, version })
// Without an id of the client's own: `key` does the same.
const { id: ___, ...newTask } = taskCreate.properties
export const addArguments = t.Object({
  tasks: t.Array(t.Object(newTask), { minItems: 1, maxItems: 50 }),
  key: idempotencyHeader.properties['idempotency-key'],
})
export const updateArguments = t.Object({ id, version, ...taskUpdate.properties })
export const statsArguments = t.Object(statsQuery.properties)

/** What the next call needs of a task. Its other fields come along, as the API returns them. */
export const taskResult = t.Object({ id, version: task.properties.version })
export const tasksResult = t.Object({ tasks: t.Array(taskResult) })
export const pageResult = t.Object({ tasks: t.Array(taskResult), cursor: nullable(t.String()) })
export const deletedResult = t.Object({ deleted: t.Array(t.String()) })
export const statsResult = t.Object(stats.properties)
