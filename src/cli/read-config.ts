import { existsSync, readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { type Config, type Env, parseConfig } from '../config/config.ts'

/** `env` is the environment on top of `file`, the `.env` of the current folder. */
export function readEnv(): { env: Env; file: Env } {
  const file: Env = existsSync('.env') ? parseEnv(readFileSync('.env', 'utf8')) : {}
  return { env: { ...file, ...process.env }, file }
}

/** Every setting, typed. Throws `ConfigError` with all mistakes. */
export function readConfig(): Config {
  return parseConfig(readEnv().env)
}
