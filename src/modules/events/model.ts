import { t } from 'elysia'
import { eventStream, text } from '../../http/schema.ts'

const cursor = (description: string) => t.Optional(text({ maxLength: 200, description }))

export const eventsQuery = t.Object({
  since: cursor(
    'Begins after this `cursor` of `/tasks/changes`, or of an event. Otherwise with the next change.',
  ),
  ticket: t.Optional(
    text({ maxLength: 200, description: 'In the place of a bearer token: from `POST /auth/tickets`.' }),
  ),
})

export const eventsHeader = t.Object({
  'last-event-id': cursor('The `id` of the last event; it goes before `since`.'),
})

const task = '{"id":"019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11","title":"Buy milk", …}'

export const events = eventStream(`retry: 2000
event: hello
id: q83vEjRWeJCrze8SNFZ4kDcuMA
data: {"cursor":"q83vEjRWeJCrze8SNFZ4kDcuMA"}

event: changes
id: Jd0aPq1XKx3vW7yZkR2mSTguMA
data: {"tasks":[${task}],"deleted":[],"cursor":"Jd0aPq1XKx3vW7yZkR2mSTguMA","has_more":false}

: ping

event: end
data: {"code":"restarting"}

`)
