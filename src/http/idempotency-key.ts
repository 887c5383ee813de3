import { t } from 'elysia'
import { text } from './schema.ts'

/** For requests that create something, so that they can be sent again (`lib/idempotency.ts`). */
export const idempotencyHeader = t.Object({
  'idempotency-key': t.Optional(
    text({
      minLength: 1,
      maxLength: 255,
      pattern: /^[\x20-\x7e]*$/,
      wanted: 'printable ASCII',
      description:
        'Any text of your own, such as a UUID. Sent again with the same key, the request creates nothing and returns what the first created, as it is now. Not with an `id` of your own.',
    }),
  ),
})
