import { Elysia } from 'elysia'
import { body } from '../../http/body.ts'
import { largestBodyBytes } from '../../http/body-sizes.ts'
import { errorFieldsOf } from '../../http/error-handler.ts'
import { conflict, errors } from '../../http/error-responses.ts'
import { requestContext } from '../../http/request-log.ts'
import { type Authenticate, requireUser } from '../../http/require-user.ts'
import { jsonText, sendJson } from '../../http/schema.ts'
import { prefersStrict } from '../../http/unknown-names.ts'
import type { Outcome } from './batch.ts'
import { batch, batchResult, task } from './model.ts'
import { misplacedCodes } from './placement.ts'
import type { TaskService } from './service.ts'

/** By itself, because it takes a larger body. */
export const batchRoutes = (tasks: TaskService, authenticate: Authenticate) =>
  new Elysia({ tags: ['tasks'] })
    .use(requestContext)
    .use(requireUser(authenticate, 'tasks:write'))
    .use(body({ bytesMax: largestBodyBytes }))
    .post(
      '/batch',
      async ({ user, body, request, requestId, set }) => {
        const { atomic: isAtomic = true, operations } = body
        const isStrict = prefersStrict(request)
        const outcomes = await tasks.batch(user.id, operations, { isAtomic, isStrict })
        const results = outcomes.map(outcome => toResult(outcome, isAtomic, requestId))
        return sendJson<typeof batchResult.static>(set, `{"results":[${results}]}`)
      },
      {
        body: batch,
        response: {
          200: jsonText(batchResult),
          ...errors('not_authorized', 'task_not_found', 'id_used', 'precondition_failed', ...misplacedCodes),
          ...conflict(task),
        },
        detail: {
          operationId: 'batchTasks',
          summary: 'Create, change and delete many tasks at once',
          description:
            'Up to 100 operations in their order, all or nothing: an error names the first operation that cannot be done in `index`. With `atomic: false` each is done on its own, and has a `status` and a `task` or an `error` of its own. A later operation may name a task that an earlier one creates with an `id` of your own; such a batch can be sent again; an `Idempotency-Key` is ignored. A `delete` puts into the trash.',
        },
      },
    )

const successStatus = { create: 201, update: 200, delete: 204 }

/** What became of an operation. Only if each is carried out on its own, it has a status of its own or an error. */
function toResult(outcome: Outcome, isAtomic: boolean, requestId: string): string {
  const { op, id } = outcome
  if ('failure' in outcome) {
    const { failure } = outcome
    return JSON.stringify({ op, id, status: failure.status, error: errorFieldsOf(failure, requestId) })
  }
  const status = isAtomic ? '' : `"status":${successStatus[outcome.op]},`
  return `{"op":"${op}","id":"${id}",${status}"task":${outcome.json}}`
}
