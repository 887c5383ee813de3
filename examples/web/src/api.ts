/** The service's calls, typed by its OpenAPI document, made as the user who is signed in. */
import createClient from 'openapi-fetch'
import type { paths } from './schema.d.ts'
import { refresh, serviceUrl, session } from './session.ts'

export const api = createClient<paths>({ baseUrl: serviceUrl, fetch: fetchAsUser })

/** Sends a call again after a 401, if there is a new token by then. */
async function fetchAsUser(request: Request): Promise<Response> {
  const token = session()?.tokens.access_token
  const response = await fetch(withToken(request, token))
  if (response.status !== 401 || !token || !(await refresh(token))) return response
  return fetch(withToken(request, session()?.tokens.access_token))
}

function withToken(request: Request, token?: string) {
  const copy = request.clone()
  if (token) copy.headers.set('authorization', `Bearer ${token}`)
  return copy
}
