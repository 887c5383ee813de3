import { observeDriver } from '../../src/db/instrumented-driver.ts'
import { bareApp } from './bare-app.ts'
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
  const { app } = bareApp(driver, { ENVIRONMENT: 'test', BCRYPT_COST: '4' })
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
  return { url: server.url.href.replace(/\/$/, ''), sent, texts, stop: () => server.stop(true) }
}
