import { Elysia } from 'elysia'
import { isInNetworks, type Network } from '../lib/client-address.ts'
import type { Log } from '../telemetry/log.ts'

interface Options {
  trustedProxies: Network[]
  /** The other end of a request's connection. */
  peerOf: (request: Request) => string | null
  log: Log
}

/**
 * Logs once that `X-Forwarded-For` came from an address that is not trusted. Behind a proxy that is missing in
 * TRUSTED_PROXIES all clients share its address, and with it the limits on sign-ins.
 */
export function reportUntrustedProxy({ trustedProxies, peerOf, log }: Options) {
  let isReported = false
  return new Elysia({ name: 'untrusted-proxy' }).onRequest(({ request }) => {
    if (isReported || !request.headers.has('x-forwarded-for')) return
    const peer = peerOf(request)
    if (peer === null || isInNetworks(peer, trustedProxies)) return
    isReported = true
    log.warn('x-forwarded-for ignored', { peer, remedy: 'if this is your proxy, add it to TRUSTED_PROXIES' })
  })
}
