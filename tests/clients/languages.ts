import { copyFileSync, mkdirSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { outcomeOf } from '../support/outcome.ts'

const generatorVersion = '7.17.0'

interface Language {
  name: string
  /** The programs that it needs. */
  needs: string[]
  /** Makes a client of the document in a folder of its own and carries out the flow with it. */
  run: (place: { document: string; folder: string; url: string }) => Promise<void>
}

/** Generators for other languages. Two minutes and downloads: only with TEST_CLIENTS=all. */
export const languages: Language[] = [
  {
    name: 'openapi-python-client',
    needs: ['python3'],
    async run({ document, folder, url }) {
      const bin = await python(folder)
      const client = join(folder, 'todo_client')
      const path = { PATH: `${bin}:${process.env.PATH}` }
      await run(
        [
          `${bin}/openapi-python-client`,
          'generate',
          '--path',
          document,
          '--output-path',
          client,
          '--meta=none',
        ],
        { env: path },
      )
      await pythonFlow(bin, 'with_openapi_python_client', folder, url)
    },
  },
  {
    name: 'openapi-generator (Python)',
    needs: ['python3', 'java', 'mvn'],
    async run({ document, folder, url }) {
      await openapiGenerator('python', document, folder)
      await pythonFlow(await python(folder), 'with_openapi_generator', folder, url)
    },
  },
  {
    name: 'openapi-generator (Go)',
    needs: ['go', 'java', 'mvn'],
    async run({ document, folder, url }) {
      await openapiGenerator('go', document, folder)
      // Generated tests that call no service of ours.
      rmSync(join(folder, 'test'), { recursive: true })
      mkdirSync(join(folder, 'flow'))
      copyFileSync(join(import.meta.dir, 'go/main.go'), join(folder, 'flow/main.go'))
      await run(['go', 'run', './flow', url], { cwd: folder, env: { GOFLAGS: '-mod=mod' } })
    },
  },
]

/** Makes a Python of its own in a folder, with the packages of the flow; its `bin`. */
async function python(folder: string): Promise<string> {
  const environment = join(folder, 'venv')
  await run(['python3', '-m', 'venv', environment])
  const requirements = join(import.meta.dir, 'python/requirements.txt')
  await run([`${environment}/bin/pip`, 'install', '--quiet', '--requirement', requirements])
  return join(environment, 'bin')
}

const pythonFlow = (bin: string, adapter: string, folder: string, url: string) =>
  run([`${bin}/python`, 'flow.py', adapter, url], {
    cwd: join(import.meta.dir, 'python'),
    env: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1' },
  })

async function openapiGenerator(language: string, document: string, folder: string) {
  const artifact = `org.openapitools:openapi-generator-cli:${generatorVersion}`
  await run(['mvn', '--quiet', 'dependency:get', `-Dartifact=${artifact}`])
  const repository = join(homedir(), '.m2/repository/org/openapitools/openapi-generator-cli')
  const jar = join(repository, generatorVersion, `openapi-generator-cli-${generatorVersion}.jar`)
  await run(['java', '-jar', jar, 'generate', '-i', document, '-g', language, '-o', folder])
}

/** Runs a program; fails with what it printed. */
export async function run(
  command: string[],
  { cwd = import.meta.dir, env = {} }: { cwd?: string; env?: Record<string, string> } = {},
) {
  const child = Bun.spawn(command, {
    cwd,
    env: { ...process.env, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const { exitCode, stdout, stderr } = await outcomeOf(child)
  if (exitCode !== 0) throw new Error(`${command.join(' ')}\n${stdout}${stderr}`)
}
