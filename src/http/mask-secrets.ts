import { maskApiTokens } from '../lib/api-token.ts'
import type { Routes } from './route-table.ts'

/**
 * A value with every secret replaced, at any depth. A field is a secret if the body schema of any route declares a field
 * of this name with `format: 'password'`: so a password is masked also where it does not belong. An API token is known
 * by its form, in any text.
 */
export function maskSecrets(value: unknown, routes: Routes): unknown {
  const secrets = secretNames(routes)
  const mask = (item: unknown): unknown => {
    if (Array.isArray(item)) return item.map(mask)
    if (typeof item === 'string') return maskApiTokens(item)
    if (typeof item !== 'object' || item === null) return item
    return Object.fromEntries(
      Object.entries(item).map(([name, part]) => [
        maskApiTokens(name),
        secrets.has(name) ? '********' : mask(part),
      ]),
    )
  }
  return mask(value)
}

/** Known of each app: its routes do not change. */
const secretsOf = new WeakMap<Routes, ReadonlySet<string>>()

const secretNames = (routes: Routes): ReadonlySet<string> =>
  secretsOf.getOrInsertComputed(routes, () => {
    const names = new Set<string>()
    for (const { hooks } of routes) collectSecrets(hooks?.body, undefined, names)
    return names
  })

/** Walks a schema of any kind; `name` is the field that it belongs to. */
function collectSecrets(schema: unknown, name: string | undefined, names: Set<string>): void {
  if (typeof schema !== 'object' || schema === null) return
  const { format, properties = {}, ...rest } = schema as { format?: unknown; properties?: object }
  if (format === 'password' && name !== undefined) names.add(name)
  for (const [property, part] of Object.entries(properties)) collectSecrets(part, property, names)
  for (const part of Object.values(rest)) collectSecrets(part, name, names)
}
