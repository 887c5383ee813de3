import type { Scope } from '../../src/lib/scope.ts'

/** What the routes behind `requireUser` require; the first line that matches counts. */
const rules: [route: RegExp, scope: Scope][] = [
  [/^(GET|HEAD) \/(tasks|lists)(\/|$)/, 'tasks:read'],
  [/^[A-Z]+ \/(tasks|lists)(\/|$)/, 'tasks:write'],
  [/^POST \/mcp$/, 'tasks:read'],
  [/^(GET|HEAD) \/users\/me(\/|$)/, 'account:read'],
  [/^[A-Z]+ \/(auth|users)\//, 'session'],
]

/** The scope that a route requires, by its method and its path. */
export function requiredScope(method: string, path: string): Scope {
  const route = `${method} ${path.replace(/^\/api(\/v1)?/, '')}`
  const rule = rules.find(([pattern]) => pattern.test(route))
  if (rule) return rule[1]
  throw new Error(`say in tests/support/required-scopes.ts which scope ${route} requires`)
}
