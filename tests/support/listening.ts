import { parseConfig } from '../../src/config/config.ts'
import { observeDriver } from '../../src/db/instrumented-driver.ts'
import { createApp } from '../../src/server/app.ts'
import { createLog } from '../../src/telemetry/log.ts'
import type { Service } from './harness.ts'

/** The service once more on the same database, the statements that it sends, and their texts. */
export function listening(api: Service) {
  const sent: string[] = []
  const texts = new Set<string>()
  const driver = observeDriver(api.driver, (_, text, run) => {
    sent.push(text)
    texts.add(text)
    return run()
  })
  const { app } = createApp({
    config: parseConfig({ ENVIRONMENT: 'test', BCRYPT_COST: '4' }),
    secretKey: 'a secret key for statements, a secret key',
    driver,
    log: createLog({ level: 'error', pretty: false, write: () => {} }),
    readiness: async () => ({ ready: true }),
    peerOf: () => null,
  })
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
  return { url: server.url.href.replace(/\/$/, ''), sent, texts, stop: () => server.stop(true) }
}
