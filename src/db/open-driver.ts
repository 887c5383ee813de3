import type { DatabaseSettings } from '../config/config.ts'
import type { Driver } from './driver.ts'

/**
 * Opens the database that the settings name, also for `await using`. Only the driver that is needed is loaded.
 * `onShortage` is that of `openPostgres`.
 */
export async function openDriver(
  settings: DatabaseSettings,
  onShortage?: (cause: unknown) => void,
): Promise<Driver & AsyncDisposable> {
  const driver =
    settings.kind === 'postgres'
      ? (await import('./postgres/postgres.ts')).openPostgres({ ...settings, onShortage })
      : await (await import('./embedded/embedded.ts')).openEmbedded(settings)
  return { ...driver, [Symbol.asyncDispose]: () => driver.close() }
}
