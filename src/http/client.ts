import { createClientAddress, type Network } from '../lib/client-address.ts'

/** Where a request comes from. */
export interface Client {
  ip: string | null
  userAgent: string | null
  /** Aborted when the client has hung up. */
  signal: AbortSignal
}

export type ClientOf = (request: Request) => Client

const userAgentMax = 500

/** `peerOf` returns the other end of a request's connection, which may be one of `trustedProxies`. */
export function createClientOf(
  trustedProxies: Network[],
  peerOf: (request: Request) => string | null,
): ClientOf {
  const addressOf = createClientAddress(trustedProxies)
  return request => ({
    ip: addressOf(peerOf(request), request.headers.get('x-forwarded-for')),
    userAgent: request.headers.get('user-agent')?.slice(0, userAgentMax) ?? null,
    signal: request.signal,
  })
}
