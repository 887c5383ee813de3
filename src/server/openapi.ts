import { parseConfig } from '../config/config.ts'
import type { Driver } from '../db/driver.ts'
import { createLog } from '../telemetry/log.ts'
import { createApp } from './app.ts'

/** The OpenAPI document as `/openapi.json` serves it, made without a database and without listening. */
export async function openApiDocument(): Promise<unknown> {
  const response = await appWithoutDatabase().handle(new Request('http://localhost/openapi.json'))
  if (!response.ok) throw new Error('the document cannot be made; the tests say why')
  return response.json()
}

/** All routes of the service, and nothing behind them. */
export function appWithoutDatabase() {
  const { app } = createApp({
    config: parseConfig({}),
    secretKey: 'unused: nobody signs in to a document',
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
