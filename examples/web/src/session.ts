/** The session of this browser: its tokens, which all tabs share, and the calls that need no token. */
import { connect } from './client.ts'
import { Problem } from './problem.ts'
import type { components } from './schema.d.ts'

type Schemas = components['schemas']

export interface Session {
  /** Another one after each sign-in, the same after a refresh. */
  id: string
  user: Schemas['Profile']
  tokens: Schemas['TokenPair']
}

const auth = connect()
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const storageKey = 'session'

export function session(): Session | null {
  return JSON.parse(localStorage.getItem(storageKey) ?? 'null')
}

export async function register(email: string, password: string) {
  const { error, response } = await auth.POST('/api/v1/auth/register', { body: { email, password } })
  if (error) throw new Problem(response, error)
  await signIn(email, password)
}

export async function signIn(email: string, password: string) {
  const body = { username: email, password }
  const { data: tokens, error, response } = await auth.POST('/api/v1/auth/login', { body, headers: form })
  if (error) throw new Problem(response, error)
  const headers = { authorization: `Bearer ${tokens.access_token}` }
  const me = await auth.GET('/api/v1/users/me', { headers })
  if (me.error) throw new Problem(me.response, me.error)
  save({ id: crypto.randomUUID(), user: me.data, tokens })
}

/** Ends the session here, and at the service if it can be reached. */
export async function signOut() {
  const headers = { authorization: `Bearer ${session()?.tokens.access_token}` }
  save(null)
  await auth.POST('/api/v1/auth/logout', { headers }).catch(() => {})
}

/**
 * Replaces an access token that was refused; returns whether there is a new one. The lock lets one call refresh at a
 * time, in all tabs. Those that waited for it find a new token already.
 */
export async function refresh(refused: string): Promise<boolean> {
  return navigator.locks.request('refresh', async () => {
    const current = session()
    if (!current) return false
    if (current.tokens.access_token !== refused) return true
    const body = { refresh_token: current.tokens.refresh_token }
    const { data, error, response } = await auth.POST('/api/v1/auth/refresh', { body, headers: form })
    // Signed out meanwhile, and perhaps another user is here.
    if (session()?.id !== current.id) return false
    if (data) save({ ...current, tokens: data })
    else if (response.status === 401) save(null)
    else throw new Problem(response, error)
    return data !== undefined
  })
}

/** Calls a listener when a user has signed in or out, here or in another tab. */
export function onSession(listener: () => void) {
  addEventListener(storageKey, listener)
  addEventListener('storage', listener)
  return () => {
    removeEventListener(storageKey, listener)
    removeEventListener('storage', listener)
  }
}

function save(value: Session | null) {
  if (value) localStorage.setItem(storageKey, JSON.stringify(value))
  else localStorage.removeItem(storageKey)
  dispatchEvent(new Event(storageKey))
}
