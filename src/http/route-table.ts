import type { TSchema } from '@sinclair/typebox'
import type { AnyElysia } from 'elysia'

/** The routes of the whole app. */
export type Routes = AnyElysia['routes']

/** The schemas of a route. */
export type Schemas = Partial<Record<'params' | 'query' | 'headers' | 'body', TSchema | undefined>>

/** The schemas of the route that a request went to; `HEAD` is answered by `GET`. */
export function schemasOf(routes: Routes, { method }: Request, path: string | undefined): Schemas {
  const wanted = method === 'HEAD' ? 'GET' : method
  return routes.find(route => route.path === path && route.method === wanted)?.hooks ?? {}
}

/** The methods of an address. If routes with and without parameters match it, those without count. */
export function allowedMethods(routes: Routes, path: string): Set<string> {
  const matching = routes.filter(route => route.path !== '/*' && matches(route.path, path))
  const fixed = matching.filter(route => !route.path.includes(':'))
  const allowed = new Set((fixed.length > 0 ? fixed : matching).map(route => route.method))
  if (allowed.has('GET')) allowed.add('HEAD')
  return allowed
}

/** For each route's pattern (`/tasks/:id`): what addresses match it, with or without a trailing slash. */
const expressions = new Map<string, RegExp>()

function matches(pattern: string, path: string): boolean {
  const expression = expressions.getOrInsertComputed(pattern, () => {
    const source = pattern.replace(/\/$/, '').replaceAll('.', '\\.').replace(/:\w+/g, '[^/]+')
    return new RegExp(`^${source}/?$`)
  })
  return expression.test(path)
}
