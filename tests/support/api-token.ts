import { expect } from 'bun:test'
import type { TokenScope } from '../../src/lib/scope.ts'
import type { Client, User } from './harness.ts'

/** Makes an API token of a user; the whole answer. */
export async function makeApiToken(
  api: Pick<Client, 'post'>,
  { token, password }: Pick<User, 'token' | 'password'>,
  scopes: readonly TokenScope[] = ['tasks:read'],
  fields: object = {},
) {
  const json = { name: 'a script', scopes, current_password: password, ...fields }
  const { status, body } = await api.post('/auth/tokens', { token, json })
  expect([status, body.code]).toEqual([201, undefined])
  return body as {
    id: string
    token: string
    name: string
    scopes: TokenScope[]
    expires_at: string | null
    created_at: string
  }
}
