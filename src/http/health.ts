import { Elysia, t } from 'elysia'
import { atMost } from '../lib/at-most.ts'
import { AppError } from '../lib/errors.ts'
import { errors } from './error-responses.ts'
import { instant, nullable } from './schema.ts'

/** Whether the service can do its work now; if not, the reason, without secrets. */
export type Readiness = () => Promise<
  | {
      ready: true
      /** When the newest good backup was begun; `null` if there is none, `undefined` if the service makes none. */
      lastBackupAt?: string | null | undefined
    }
  | { ready: false; reason: string }
>

const answerWithinMs = 1500

/** `/health` and `/health/live` say that the process answers; `/health/ready` asks the database. */
export const health = (readiness: Readiness) =>
  new Elysia({ prefix: '/health', tags: ['health'] })
    .get('', () => ({ status: 'healthy' as const }), {
      response: { 200: alive, ...errors() },
      detail: {
        operationId: 'checkHealth',
        summary: 'Does the process answer?',
        description: 'It asks neither the database nor anything else.',
      },
    })
    .get('/live', () => ({ status: 'healthy' as const }), {
      response: { 200: alive, ...errors() },
      detail: {
        operationId: 'checkLiveness',
        summary: 'The same, for a liveness probe',
        description: 'Restart the process when it does not answer.',
      },
    })
    .get(
      '/ready',
      async () => {
        const state = await atMost(answerWithinMs, readiness(), tooSlow)
        if (!state.ready) throw new AppError('not_ready', { detail: state.reason })
        const { lastBackupAt } = state
        return {
          status: 'ready' as const,
          ...(lastBackupAt !== undefined && { last_backup_at: lastBackupAt }),
        }
      },
      {
        response: { 200: ready, ...errors('not_ready') },
        detail: {
          operationId: 'checkReadiness',
          summary: 'Can it do its work?',
          description: 'Asks the database, and whether its migrations are current. For a readiness probe.',
        },
      },
    )

const ready = t.Object(
  {
    status: t.Literal('ready'),
    last_backup_at: t.Optional(
      nullable(instant({ description: 'The newest good backup, if the service makes them (BACKUP_EVERY).' })),
    ),
  },
  { title: 'Ready', examples: [{ status: 'ready' }] },
)

const alive = t.Object({ status: t.Literal('healthy') }, { title: 'Health' })

const tooSlow = () => ({ ready: false as const, reason: 'the database does not answer' })
