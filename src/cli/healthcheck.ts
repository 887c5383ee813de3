import { urlHost } from '../http/bind.ts'
import { readConfig } from './read-config.ts'
import { say } from './terminal.ts'

/** A service that listens on all addresses is asked at the loopback address. */
const loopback: Record<string, string> = { '0.0.0.0': '127.0.0.1', '[::]': '[::1]' }

/** `todo-api healthcheck`: returns whether the service on this machine is ready. */
export async function healthcheckCommand(): Promise<boolean> {
  const { host, port } = readConfig()
  const { hostname } = new URL(`http://${urlHost(host)}`)
  const url = `http://${loopback[hostname] ?? hostname}:${port}/health/ready`
  // Not through the proxy of HTTP_PROXY, which Docker may set in every container.
  const request = { proxy: false, signal: AbortSignal.timeout(3000) }
  const response = await fetch(url, request as RequestInit).catch(error => {
    throw new Error(
      `${url} does not answer (${error.name === 'TimeoutError' ? 'for 3 s' : (error.code ?? error.message)})`,
    )
  })
  say(await response.text())
  return response.ok
}
