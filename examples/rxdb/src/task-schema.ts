import type { RxJsonSchema } from 'rxdb'
import type { TaskDoc } from './replicate.ts'

export const taskSchema: RxJsonSchema<TaskDoc> = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: {
    id: { type: 'string', maxLength: 36 },
    /** The service's; 0 for a task that it does not have yet. */
    version: { type: 'integer' },
    title: { type: 'string' },
    description: { type: ['string', 'null'] },
    status: { type: 'string' },
    priority: { type: 'integer' },
    due_at: { type: ['string', 'null'] },
  },
  required: ['id'],
}
