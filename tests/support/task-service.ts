import { createDb } from '../../src/db/client.ts'
import { createTaskService, type TaskService } from '../../src/modules/tasks/service.ts'
import type { Service } from './harness.ts'

/** The tasks' part of a service, on the same database: for what no route does. */
export function serviceOn(api: Service, secretKey = 'a secret for cursors and ids'): TaskService {
  const driver = { kind: api.kind, query: api.sql } as never
  return createTaskService({ db: createDb(driver), driver, secretKey })
}
