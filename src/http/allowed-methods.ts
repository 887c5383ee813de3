import type { AnyElysia } from 'elysia'

/** The methods of an address. If routes with and without parameters match it, those without count. */
export function allowedMethods(path: string, routes: AnyElysia['routes']): Set<string> {
  const matching = routes.filter(route => route.path !== '/*' && matches(route.path, path))
  const fixed = matching.filter(route => !route.path.includes(':'))
  const allowed = new Set((fixed.length > 0 ? fixed : matching).map(route => route.method))
  if (allowed.has('GET')) allowed.add('HEAD')
  allowed.delete('OPTIONS')
  return allowed
}

/** Whether an address matches a route's pattern (`/tasks/:id`), with or without a trailing slash. */
function matches(pattern: string, path: string): boolean {
  const split = (text: string) => text.replace(/\/$/, '').split('/')
  const expected = split(pattern)
  const parts = split(path)
  return (
    expected.length === parts.length &&
    expected.every((part, i) => (part.startsWith(':') ? parts[i] !== '' : part === parts[i]))
  )
}
