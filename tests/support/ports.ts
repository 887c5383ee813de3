import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Server } from 'node:net'

/** Lets a server listen on a port of 127.0.0.1 that is free; returns the port. */
export async function listenOnFreePort(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/**
 * A port on 127.0.0.1 that no process listens on. Systems assign ports from 32768 on, or higher ones: so no other test's server
 * gets this one meanwhile, whose clients would not be its own.
 */
export async function freePort(): Promise<number> {
  while (true) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    const probe = createServer()
    try {
      await once(probe.listen(port, '127.0.0.1'), 'listening')
      await once(probe.close(), 'close')
      return port
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
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
