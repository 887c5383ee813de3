import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import { flow, type GeneratedClient } from './flow.ts'
import { languages, run } from './languages.ts'
import { lintWithRedocly, lintWithSpectral, type Problem } from './lint.ts'

const folder = import.meta.dir
const generated = join(folder, 'generated')
const documentPath = join(generated, 'openapi.json')

/** What a linter complains about and stays as it is, and why. */
const explained: Record<string, string> = {
  'redocly no-illogical-composition-keywords #/components/schemas/OperationResult/properties/error/oneOf':
    'Only one can have a certain `detail`: it is a text, or a list.',
  'redocly operation-4xx-response #/paths/~1health/get/responses':
    'A probe accepts nothing that could be wrong.',
  'redocly operation-4xx-response #/paths/~1health~1live/get/responses':
    'A probe accepts nothing that could be wrong.',
  'redocly operation-4xx-response #/paths/~1health~1ready/get/responses':
    'A probe accepts nothing that could be wrong.',
  'spectral info-contact #/info': 'The project is run by those who install it: it has no address.',
}

const bun = (...args: string[]) => run([process.execPath, ...args])

describe('the OpenAPI document of the executable', () => {
  let service: Running
  beforeAll(async () => {
    rmSync(generated, { recursive: true, force: true })
    mkdirSync(generated)
    service = await startExecutable({
      ENVIRONMENT: 'test',
      BCRYPT_COST: '4',
      LOGIN_FAILURE_LIMIT: '3',
      LOGIN_LIMIT: '0',
      REGISTER_LIMIT: '0',
    })
    await untilReady(service)
    await Bun.write(documentPath, await fetch(`${service.url}/openapi.json`))
  }, 120_000)
  afterAll(async () => {
    await service?.stop()
    rmSync(generated, { recursive: true, force: true })
  })

  test.each([
    ['openapi-typescript', 'openapi-fetch'],
    ['hey-api', 'hey-api'],
    ['orval', 'orval'],
  ])(
    'makes a client with %s that does all that a user does',
    async (generator, adapter) => {
      const target = join(generated, generator)
      mkdirSync(target)
      await bun('generate.ts', generator, documentPath, target, service.url)
      const { default: connect } = (await import(`./adapters/${adapter}.ts`)) as {
        default: (url: string) => GeneratedClient
      }
      await flow(connect(service.url))
    },
    60_000,
  )

  for (const language of languages) {
    const title = `makes a client with ${language.name} that does all that a user does`
    const missing = language.needs.filter(program => !Bun.which(program))
    const reason =
      process.env.TEST_CLIENTS !== 'all'
        ? 'it needs a minute and downloads: set TEST_CLIENTS=all'
        : missing.length > 0 && `there is no ${missing.join(', ')}`
    if (reason) {
      process.stderr.write(`NOT RUN: ${title}: ${reason}\n`)
      continue
    }
    test(title, async () => {
      const folder = join(generated, language.name.replace(/\W+/g, '-'))
      mkdirSync(folder)
      await language.run({ document: documentPath, folder, url: service.url })
    }, 300_000)
  }

  test('makes clients whose types fit their use', async () => {
    await bun('../../node_modules/typescript/bin/tsc', '-p', 'tsconfig.json')
  }, 60_000)

  test.each([
    ['Redocly (recommended-strict)', lintWithRedocly],
    ['Spectral (oas)', lintWithSpectral],
  ])(
    'passes %s but for what is explained',
    async (_name, lint) => {
      const problems: Problem[] = await lint(documentPath)
      expect(problems.filter(({ place }) => explained[place] === undefined)).toEqual([])
    },
    60_000,
  )

  test('has no explanation of a problem that is gone', async () => {
    const problems = [...(await lintWithRedocly(documentPath)), ...(await lintWithSpectral(documentPath))]
    expect(problems.map(({ place }) => place).sort()).toEqual(Object.keys(explained).sort())
  }, 60_000)
})
