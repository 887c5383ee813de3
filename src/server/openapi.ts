import { parseConfig } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { createLog } from '../telemetry/log.ts'
import { createApp } from './app.ts'

/** The OpenAPI document as `/openapi.json` serves it, without a database or a listener. */
export async function openApiDocument(): Promise<unknown> {
  const response = await appWithoutDatabase().handle(new Request('http://localhost/openapi.json'))
  if (!response.ok) throw new Error('the OpenAPI document cannot be made; tests/surface.test.ts says why')
  return response.json()
}

/** All routes of the service, without a database. */
export function appWithoutDatabase() {
  const { app } = createApp({
    config: parseConfig({}),
    secretKey: 'unused: there are no sign-ins to a document',
    driver: noDatabase,
    log: createLog({ level: 'error', pretty: false, write: () => {} }),
    readiness: async () => ({ ready: false, reason: 'this is only a document' }),
    peerOf: () => null,
  })
  return app
}

const refuse = () => Promise.reject(new Error('there is no database here'))
const noDatabase: Driver = {
  kind: 'embedded',
  query: refuse,
  transaction: refuse,
  dedicatedConnection: refuse,
  close: async () => {},
}
