import { type Context, type Static, status, t } from 'elysia'
import { deriveKey } from '../lib/derive-key.ts'
import { addressOf } from './query.ts'
import { sendJson, text } from './schema.ts'

/**
 * Entity tags (RFC 9110, section 8.8.3). Of a resource with a version, the tag is the version. It does not name the user,
 * and two users may have the same id at the same version: so such an answer is `no-store`, or a browser in which one user
 * signs in after the other would show the first one's. A client that keeps it by itself may ask with `If-None-Match`.
 */

const entityTag = (version: number | string) => `"${version}"`

/** `*`, or a list of tags, which may have empty elements. Its parts begin differently, so no input makes the match slow. */
const tags = /^(\*|[\s,]*(W\/)?"[^"\s]*"(\s*,[\s,]*(W\/)?"[^"\s]*")*[\s,]*)$/
/** Without what proxies append that compress: Apache httpd, Caddy and lighttpd make `"7-gzip"` of `"7"`. */
const anyTag = /(W\/)?"([^"]*?)(?:-(?:gzip|br|zstd|deflate))?"/g

const header = (description: string) =>
  t.Optional(text({ pattern: tags, wanted: 'a list of entity tags such as "7", or *', description }))

/** For a change that is made only if the resource has one of these versions, or none of those. */
export const preconditionHeaders = t.Object({
  'if-match': header('Only if it still has one of these versions, in quotes (`"7"`), or `*`; otherwise 412.'),
  'if-none-match': header('Only if it has none of these versions; otherwise 412. `*` is each of them.'),
})

/** For a read that returns only what has changed. */
export const ifNoneMatchHeader = t.Object({
  'if-none-match': header('304 if the answer still has one of these `ETag`s.'),
})

/** Which versions a change accepts, as text. */
export interface Precondition {
  /** Only these; null for any. */
  ifMatch: string[] | null
  /** None of these. */
  ifNoneMatch: string[] | null
}

export const noPrecondition: Precondition = { ifMatch: null, ifNoneMatch: null }

/** What the headers of a change demand. */
export function preconditionOf(headers: Static<typeof preconditionHeaders>): Precondition {
  const { 'if-match': ifMatch = '*', 'if-none-match': ifNoneMatch } = headers
  if (ifMatch === '*' && ifNoneMatch === undefined) return noPrecondition
  // A change is of something that is there: no version will do.
  if (ifNoneMatch === '*') return { ifMatch: [], ifNoneMatch: null }
  return {
    ifMatch: ifMatch === '*' ? null : versionsIn(ifMatch, 'strong'),
    ifNoneMatch: ifNoneMatch === undefined ? null : versionsIn(ifNoneMatch, 'weak'),
  }
}

/** The versions that tags name, as text. To the strong comparison a weak tag names none. */
function versionsIn(list: string, comparison: 'strong' | 'weak'): string[] {
  return [...list.matchAll(anyTag)]
    .filter(([, weak, tag]) => (comparison === 'weak' || !weak) && /^(0|[1-9]\d{0,15})$/.test(tag!))
    .map(([, , tag]) => tag!)
}

/** Whether an `If-None-Match` names the version; weak tags count, as proxies that compress make them. */
export function isKnown(ifNoneMatch: string | undefined, version: number | string): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch === '*' || [...ifNoneMatch.matchAll(anyTag)].some(([, , tag]) => tag === `${version}`)
}

/** The tag of an answer that follows from what a user has, by what its version is. */
export type AnswerTags = (userId: string, request: Request) => (version: number | string) => string

/**
 * Tags of lists: the user's version when the list was read, and a hash of everything else that it follows from: the user,
 * the address, `form` (how rows are written), and the secret that signs the cursors in it. The user, because a browser
 * may have kept the list of another one under the same address.
 */
export function createAnswerTags(secretKey: string, form: string): AnswerTags {
  const key = deriveKey(secretKey, 'entity tags')
  const seed = Bun.hash.wyhash(form, Bun.hash.wyhash(key))
  return (userId, request) => {
    const hash = Bun.hash.wyhash(`${userId} ${addressOf(request)}`, seed).toString(36)
    return version => `${version}-${hash}`
  }
}

/** Sends a resource whose JSON is a `T`, with its version as the tag. */
export function sendTagged<T>(set: Context['set'], { version, json }: { version: number; json: string }): T {
  set.headers.etag = entityTag(version)
  return sendJson(set, json)
}

/** Sends such a resource to the client that has created it at this path: 201, with its address. */
export function sendCreated<T>(
  set: Context['set'],
  path: string,
  resource: { id: string; version: number; json: string },
) {
  set.headers.location = `${path.replace(/\/$/, '')}/${resource.id}`
  return status(201, sendTagged<T>(set, resource))
}

/** Sends such a resource to a client that asks for it: 304 if the client has this version. */
export function sendUnlessKnown<T>(
  set: Context['set'],
  ifNoneMatch: string | undefined,
  resource: { version: number; json: string },
) {
  if (!isKnown(ifNoneMatch, resource.version)) return sendTagged<T>(set, resource)
  // An answer without a body has no content type.
  set.headers.etag = entityTag(resource.version)
  return status(304, undefined)
}

/** Tags an answer that a client may keep, and must ask about before each use. */
export function setAnswerTag({ headers }: Context['set'], tag: string): void {
  headers.etag = entityTag(tag)
  headers['cache-control'] = 'private, no-cache'
}

/**
 * The 304 for a client that has the answer already; `undefined` if it has to be sent. `readVersion` is called only if the
 * client names an answer; its `undefined` means that no version says whether the answer is still the same.
 */
export async function notModified(
  set: Context['set'],
  ifNoneMatch: string | undefined,
  tagOf: (version: number | string) => string,
  readVersion: () => Promise<number | string | undefined>,
) {
  if (ifNoneMatch === undefined) return undefined
  const version = await readVersion()
  if (version === undefined || !isKnown(ifNoneMatch, tagOf(version))) return undefined
  setAnswerTag(set, tagOf(version))
  return status(304, undefined)
}
