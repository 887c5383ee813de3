import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

export interface Problem {
  /** Linter, rule and place. */
  place: string
  message: string
}

// From this folder's packages, which `bun run test` installs before the tests begin.
const load = createRequire(import.meta.url)

/** What Redocly says of a document, errors and warnings alike. */
export async function lintWithRedocly(path: string): Promise<Problem[]> {
  const { createConfig, lintFromString } = load('@redocly/openapi-core')
  const config = await createConfig({ extends: ['recommended-strict'] })
  const problems: { ruleId: string; message: string; location: { pointer: string }[] }[] =
    await lintFromString({ source: readFileSync(path, 'utf8'), absoluteRef: path, config })
  return problems.map(({ ruleId, message, location }) => ({
    place: `redocly ${ruleId} ${location[0]?.pointer}`,
    message,
  }))
}

/** What Spectral says of a document by the recommended rules for OpenAPI, errors and warnings alike. */
export async function lintWithSpectral(path: string): Promise<Problem[]> {
  const { Spectral } = load('@stoplight/spectral-core')
  const { oas } = load('@stoplight/spectral-rulesets')
  const spectral = new Spectral()
  spectral.setRuleset({ extends: [oas] })
  const problems: { code: string; message: string; path: string[] }[] = await spectral.run(
    JSON.parse(readFileSync(path, 'utf8')),
  )
  return problems.map(({ code, message, path }) => ({
    place: `spectral ${code} #/${path.join('/')}`,
    message,
  }))
}
