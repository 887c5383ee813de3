import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Server } from 'node:net'

/** Lets a server listen on a port of 127.0.0.1 that is free; returns the port. */
export async function listenOnFreePort(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/** A port on 127.0.0.1 that no process listens on at the moment. */
export async function freePort(): Promise<number> {
  const probe = createServer()
  const port = await listenOnFreePort(probe)
  await once(probe.close(), 'close')
  return port
}

/** The same address with another port. */
export function withPort(url: string, port: number | string): string {
  const address = new URL(url)
  address.port = String(port)
  return address.href
}

/** Whether a process listens on a port of 127.0.0.1. */
export function isListening(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
