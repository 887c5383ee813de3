/** The service's calls as a user who is signed in. */
import { type Api, connect } from './client.ts'
import { refresh, session } from './session.ts'

/** A client for one session. When that has ended, its calls fail: none goes on as another user. */
export function createApi(sessionId: string): Api {
  return connect({ fetch: fetchAsUser })

  /** Sends a call again after a 401, if there is a new token by then. */
  async function fetchAsUser(request: Request): Promise<Response> {
    const token = tokenOf(sessionId)
    const response = await fetch(withToken(request, token))
    if (response.status !== 401 || !(await refresh(token))) return response
    return fetch(withToken(request, tokenOf(sessionId)))
  }
}

function tokenOf(sessionId: string): string {
  const current = session()
  if (current?.id !== sessionId) throw new Error('The session has ended.')
  return current.tokens.access_token
}

function withToken(request: Request, token: string) {
  const copy = request.clone()
  copy.headers.set('authorization', `Bearer ${token}`)
  return copy
}
