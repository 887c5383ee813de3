import ipaddr from 'ipaddr.js'

type Network = [address: ipaddr.IPv4 | ipaddr.IPv6, bits: number]

/** Whether it is written as an address usually is: the parser also reads 10.0.0 as 10.0.0.0, and 010.0.0.1 as octal. */
export const isAddress = (text: string) =>
  ipaddr.IPv4.isValidFourPartDecimal(text) || ipaddr.IPv6.isValid(text)

/** Parses a CIDR or a single address. Throws when it is neither. */
export function parseNetwork(text: string): Network {
  const [ip = '', bits] = text.split('/')
  if (!isAddress(ip)) throw new Error('not an address')
  if (bits !== undefined) return ipaddr.parseCIDR(text)
  const address = ipaddr.parse(ip)
  return [address, address.kind() === 'ipv4' ? 32 : 128]
}

/** Whether an address that the system reported is in one of the networks. */
export const isInNetworks = (ip: string, networks: Network[]): boolean => isIn(ipaddr.process(ip), networks)

const isIn = (address: ipaddr.IPv4 | ipaddr.IPv6, networks: Network[]) =>
  ipaddr.subnetMatch(address, { listed: networks }, 'other') === 'listed'

/** More proxies than stand in a row anywhere. Any trusted client could make a header of two thousand. */
const hopsMax = 20

/**
 * The address of a request's client. In `X-Forwarded-For` it is the rightmost address that is not a trusted proxy; what
 * is left of it may be forged.
 */
export function createClientAddress(trustedProxies: Network[]) {
  return (peer: string | null, forwardedFor: string | null): string | null => {
    if (peer === null) return null
    let address = ipaddr.process(peer)
    const hops = forwardedFor?.split(',').slice(-hopsMax) ?? []
    while (isIn(address, trustedProxies) && hops.length > 0) {
      const hop = addressOf(hops.pop()!.trim())
      if (!isAddress(hop)) break
      address = ipaddr.process(hop)
    }
    return address.toString()
  }
}

/** The address of a hop: proxies write `1.2.3.4`, `1.2.3.4:5678`, `::1`, `[::1]` and `[::1]:5678`. */
const addressOf = (hop: string): string => hop.replace(/^(?:\[(.*)\]|([^:]*))(?::\d{1,5})?$/, '$1$2')

/**
 * What is counted together, by limits and in queues: an IPv6 customer has a whole /64. Clients that have hung up have no
 * address any more, and share one.
 */
export function networkOf(ip: string | null): string {
  if (ip === null) return 'unknown'
  const address = ipaddr.process(ip)
  return address.kind() === 'ipv4'
    ? address.toString()
    : ipaddr.IPv6.networkAddressFromCIDR(`${address}/64`).toString()
}
