import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import { flow, type GeneratedClient } from './flow.ts'
import { lintWithRedocly, lintWithSpectral, type Problem } from './lint.ts'

const folder = import.meta.dir
const generated = join(folder, 'generated')
const documentPath = join(generated, 'openapi.json')

/** What a linter complains about and stays as it is, and why. */
const explained: Record<string, string> = {
  'redocly operation-4xx-response #/paths/~1health/get/responses': 'A probe takes nothing that can be wrong.',
  'redocly operation-4xx-response #/paths/~1health~1live/get/responses':
    'A probe takes nothing that can be wrong.',
  'redocly operation-4xx-response #/paths/~1health~1ready/get/responses':
    'A probe takes nothing that can be wrong.',
  'spectral info-contact #/info': 'The project is run by those who install it: it has no address.',
}

/** Runs Bun with these arguments in this folder; fails with what it printed. */
async function bun(...args: string[]) {
  const child = Bun.spawn([process.execPath, ...args], { cwd: folder, stdout: 'pipe', stderr: 'pipe' })
  const printed = Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  if ((await child.exited) !== 0) throw new Error(`bun ${args.join(' ')}\n${(await printed).join('')}`)
}

describe('the OpenAPI document of the executable', () => {
  let service: Running
  beforeAll(async () => {
    rmSync(generated, { recursive: true, force: true })
    mkdirSync(generated)
    const installed = bun('install', '--frozen-lockfile', '--no-summary')
    service = await startExecutable({
      ENVIRONMENT: 'test',
      BCRYPT_COST: '4',
      LOGIN_FAILURE_LIMIT: '3',
      LOGIN_LIMIT: '0',
      REGISTER_LIMIT: '0',
    })
    await untilReady(service)
    await Bun.write(documentPath, await fetch(`${service.url}/openapi.json`))
    await installed
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
