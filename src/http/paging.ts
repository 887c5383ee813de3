import { type Context, t } from 'elysia'
import { type Page, pageSizeDefault } from '../db/page.ts'
import { addressOf } from './query.ts'
import { sendJson, text } from './schema.ts'

/** The parameters of every list that comes in pages. */
export const pageParameters = {
  limit: t.Optional(
    t.Integer({ minimum: 1, maximum: 200, description: `At most this many; ${pageSizeDefault} by default.` }),
  ),
  cursor: t.Optional(
    text({
      maxLength: 8000,
      description: 'Where the page begins: from the `Link` header of the one before.',
    }),
  ),
}

/** Sends a page whose JSON is a `T`, with the link to the next one (RFC 8288), and the total. */
export function sendPage<T>(set: Context['set'], request: Request, { items, next, total }: Page): T {
  if (next !== undefined) set.headers.link = `<${nextAddress(request, next)}>; rel="next"`
  if (total !== undefined) set.headers['x-total-count'] = String(total)
  return sendJson(set, `[${items}]`)
}

/** The requested address, with this cursor in the place of its own cursor or offset. */
function nextAddress(request: Request, cursor: string): string {
  const address = addressOf(request)
  // Only the first `?` ends the path: the others belong to values.
  const [path] = address.split('?', 1)
  const kept = address
    .slice(path!.length + 1)
    .split('&')
    .filter(part => part !== '' && !/^(cursor|offset)=/.test(decoded(part)))
  return `${path}?${[...kept, `cursor=${cursor}`].join('&')}`
}

/** A name may be percent-encoded as well as a value. */
const decoded = (part: string) => (part.includes('%') ? String(new URLSearchParams(part)) : part)
