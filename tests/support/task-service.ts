import { createDb } from '../../src/db/drizzle.ts'
import { createTaskService, type TaskService } from '../../src/modules/tasks/service.ts'
import type { Service } from './harness.ts'

/** The tasks' part of a service, on the same database, for what no route does; `report` receives what is logged. */
export function serviceOn(
  api: Service,
  secretKey = 'a secret for cursors and ids',
  report: (message: string, fields?: Record<string, unknown>) => void = () => {},
): TaskService {
  return createTaskService({ db: createDb(api.driver), secretKey, log: { error: report } })
}
