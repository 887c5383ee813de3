import { Elysia, t } from 'elysia'

/** Whether the service can do its work now; otherwise why not, in words without secrets. */
export type Readiness = () => Promise<{ ready: true } | { ready: false; reason: string }>

const answerWithinMs = 1500

/** `/health` and `/health/live` say that the process answers; `/health/ready` asks the database. */
export const health = (readiness: Readiness) =>
  new Elysia({ prefix: '/health', tags: ['health'] })
    .get('', () => ({ status: 'healthy' as const }), {
      response: { 200: alive },
      detail: { operationId: 'health', summary: 'Does the process answer?' },
    })
    .get('/live', () => ({ status: 'healthy' as const }), {
      response: { 200: alive },
      detail: { operationId: 'live', summary: 'The same, for a liveness probe' },
    })
    .get(
      '/ready',
      async ({ status }) => {
        const state = await Promise.race([readiness(), tooSlow()])
        return state.ready
          ? { status: 'ready' as const }
          : status(503, { status: 'unavailable' as const, reason: state.reason })
      },
      {
        response: { 200: t.Object({ status: t.Literal('ready') }, { title: 'Ready' }), 503: notReady },
        detail: {
          operationId: 'ready',
          summary: 'Can it do its work?',
          description: 'Asks the database, and whether its migrations are current. For a readiness probe.',
        },
      },
    )

const alive = t.Object({ status: t.Literal('healthy') }, { title: 'Health' })
const notReady = t.Object({ status: t.Literal('unavailable'), reason: t.String() }, { title: 'NotReady' })

async function tooSlow() {
  await Bun.sleep(answerWithinMs)
  return { ready: false as const, reason: 'the database does not answer' }
}
