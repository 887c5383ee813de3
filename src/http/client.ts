import { Elysia } from 'elysia'
import { createClientAddress, isInNetworks, parseNetwork } from '../lib/client-address.ts'
import type { Log } from '../telemetry/log.ts'

/** Where a request comes from. */
export interface Client {
  ip: string | null
  userAgent: string | null
  /** Aborted when the client has hung up. */
  signal: AbortSignal
}

export type ClientOf = (request: Request) => Client

/** The other end of a request's connection, which may be a proxy. */
export type PeerOf = (request: Request) => string | null

const userAgentMax = 500

export function createClientOf(trustedProxies: string[], peerOf: PeerOf): ClientOf {
  const addressOf = createClientAddress(trustedProxies.map(parseNetwork))
  return request => ({
    ip: addressOf(peerOf(request), request.headers.get('x-forwarded-for')),
    userAgent: request.headers.get('user-agent')?.slice(0, userAgentMax) ?? null,
    signal: request.signal,
  })
}

/**
 * Logs once that `X-Forwarded-For` came from an address that is not trusted. Behind a proxy that is missing in
 * TRUSTED_PROXIES all clients share its address, and with it the limits on sign-ins.
 */
export function reportUntrustedProxy(trustedProxies: string[], peerOf: PeerOf, log: Log) {
  const networks = trustedProxies.map(parseNetwork)
  let isReported = false
  return new Elysia({ name: 'untrusted-proxy' }).onRequest(({ request }) => {
    if (isReported || !request.headers.has('x-forwarded-for')) return
    const peer = peerOf(request)
    if (peer === null || isInNetworks(peer, networks)) return
    isReported = true
    log.warn('x-forwarded-for ignored', { peer, remedy: 'if this is your proxy, add it to TRUSTED_PROXIES' })
  })
}
