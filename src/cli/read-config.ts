import { existsSync, readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { type Config, ConfigError, type Env, parseConfig } from '../config/config.ts'

/** `env` is the environment on top of `file`, the `.env` of the current folder. */
export function readEnv(): { env: Env; file: Env } {
  const file: Env = existsSync('.env') ? parseEnv(readEnvFile()) : {}
  return { env: { ...file, ...process.env }, file }
}

/** Docker makes a folder of a file that is mounted and not there. */
function readEnvFile(): string {
  try {
    return readFileSync('.env', 'utf8')
  } catch (error) {
    throw new ConfigError([`.env cannot be read (${(error as NodeJS.ErrnoException).code})`])
  }
}

/** Every setting, typed. Throws `ConfigError` with all mistakes. */
export function readConfig(): Config {
  return parseConfig(readEnv().env)
}
