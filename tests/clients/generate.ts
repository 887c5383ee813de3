/** `bun generate.ts GENERATOR DOCUMENT FOLDER BASE_URL`: writes a client of an OpenAPI document. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [generator, document, folder, baseUrl] = process.argv.slice(2) as [string, string, string, string]

if (generator === 'openapi-typescript') {
  const { default: openapiTS, astToString } = await import('openapi-typescript')
  writeFileSync(join(folder, 'schema.ts'), astToString(await openapiTS(pathToFileURL(document))))
} else if (generator === 'hey-api') {
  const { createClient } = await import('@hey-api/openapi-ts')
  await createClient({ input: document, output: folder, logs: { level: 'warn' } })
} else if (generator === 'orval') {
  const { generate } = await import('orval')
  const input = { target: document }
  const output = {
    target: join(folder, 'client.ts'),
    client: 'fetch' as const,
    mode: 'single' as const,
    baseUrl,
  }
  await generate({ input, output })
  await generate({ input, output: { ...output, target: join(folder, 'zod.ts'), client: 'zod' } })
} else throw new Error(`no such generator: ${generator}`)
