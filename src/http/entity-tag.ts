import { t } from 'elysia'
import { text } from './schema.ts'

/** Entity tags (RFC 9110, section 8.8.3) of resources with a version: the tag is the version. */

export const entityTag = (version: number) => `"${version}"`

/** `*`, or a list of tags. Its parts begin differently, so no input makes the match slow. */
const tags = /^(\*|(W\/)?"[^"\s]*"(\s*,\s*(W\/)?"[^"\s]*")*)$/
const anyTag = /(W\/)?"([^"]*)"/g

const header = (description: string) =>
  t.Optional(
    text({ maxLength: 1000, pattern: tags, wanted: 'a list of entity tags such as "7", or *', description }),
  )

/** For a change that is made only if the task still has one of these versions. */
export const ifMatchHeader = t.Object({
  'if-match': header('Only if the task still has one of these `ETag`s, or `*`; otherwise 412.'),
})

/** For a read that returns the task only if it has changed. */
export const ifNoneMatchHeader = t.Object({
  'if-none-match': header('304 if the task still has one of these `ETag`s.'),
})

/**
 * The versions that an `If-Match` accepts, as text; null for any. The comparison is the strong one: a weak tag, and a
 * tag that no version has, match nothing.
 */
export function wantedVersions(ifMatch: string | undefined): string[] | null {
  if (ifMatch === undefined || ifMatch === '*') return null
  return [...ifMatch.matchAll(anyTag)]
    .filter(([, weak, tag]) => !weak && /^(0|[1-9]\d{0,15})$/.test(tag!))
    .map(([, , tag]) => tag!)
}

/** Whether an `If-None-Match` names the version; weak tags count, as proxies that compress make them. */
export function isKnown(ifNoneMatch: string | undefined, version: number): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch === '*' || [...ifNoneMatch.matchAll(anyTag)].some(([, , tag]) => tag === `${version}`)
}
