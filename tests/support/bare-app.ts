import { type Env, parseConfig } from '../../src/config/config.ts'
import type { Driver } from '../../src/db/driver.ts'
import { createApp } from '../../src/server/app.ts'
import { createLog } from '../../src/telemetry/log.ts'

const unused = () => Promise.reject(new Error('not needed here'))

/** The app that nothing listens for, with a secret of its own, on as much of a driver as a test needs. */
export const bareApp = (driver: Partial<Driver>, settings: Env = {}) =>
  createApp({
    config: parseConfig(settings),
    secretKey: 'a secret key of an app without a listener',
    driver: {
      kind: 'postgres',
      query: unused,
      transaction: unused,
      dedicatedConnection: unused,
      close: unused,
      ...driver,
    },
    log: createLog({ level: 'error', pretty: false, write: () => {} }),
    readiness: async () => ({ ready: true }),
    peerOf: () => null,
  })
