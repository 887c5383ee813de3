import type { components } from './schema.d.ts'

type Schemas = components['schemas']

/** An answer of the service that is no success. */
export class Problem extends Error {
  readonly status: number
  /** Set when the same call may succeed later: the service is busy, restarting, or limits this user. */
  readonly retryAfterSeconds: number | undefined

  constructor(response: Response, { detail }: Schemas['Error'] | Schemas['ValidationFailed']) {
    super(typeof detail === 'string' ? detail : detail.map(nameMistake).join('. '))
    this.status = response.status
    const isLater = response.status === 429 || response.status >= 500
    this.retryAfterSeconds = isLater ? Number(response.headers.get('retry-after') ?? 5) : undefined
  }
}

/** A 422 lists every mistake, and where it is. */
const nameMistake = ({ loc, msg }: Schemas['Problem']) => `${loc.at(-1)}: ${msg}`
