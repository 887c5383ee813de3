import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onBothDatabases } from './support/harness.ts'

const scripts = join(import.meta.dir, 'clients/python')
const python = pythonWithAuthlib()
if (!python) {
  process.stderr.write(
    '\nNOT RUN: the test of Authlib needs Python with venv and pip, and a package index.\n',
  )
}

/** A Python with Authlib, made once in build/; `undefined` if that is not possible here. */
function pythonWithAuthlib(): string | undefined {
  if (!Bun.which('python3')) return undefined
  const requirements = join(scripts, 'authlib-requirements.txt')
  const folder = join(import.meta.dir, '../build/authlib', Bun.hash(readFileSync(requirements)).toString(36))
  const [python, pip] = [join(folder, 'bin/python'), join(folder, 'bin/pip')]
  const succeeds = (command: string[]) => Bun.spawnSync(['env', ...command]).exitCode === 0
  const isMade =
    succeeds([python, '-c', 'import authlib, httpx']) ||
    (succeeds(['python3', '-m', 'venv', folder]) &&
      succeeds([pip, 'install', '--quiet', '--requirement', requirements]))
  return isMade ? python : undefined
}

onBothDatabases('OAuth 2', api => {
  test.skipIf(!python)(
    'Authlib (Python) signs in and refreshes at one endpoint',
    async () => {
      const ada = await api.user()
      const words = [`${api.url}/api/v1/auth/login`, ada.email, ada.password]

      const child = Bun.spawn([python!, join(scripts, 'with_authlib.py'), ...words], { stderr: 'ignore' })
      const [tokens, next] = JSON.parse(await new Response(child.stdout).text())

      for (const { access_token } of [tokens, next]) {
        const me = await api.get('/users/me', { token: access_token })
        expect(me).toMatchObject({ status: 200, body: { id: ada.id } })
      }
      expect(next.refresh_token).not.toBe(tokens.refresh_token)
    },
    60_000,
  )
})
