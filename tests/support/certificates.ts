import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** An authority of certificates, made with openssl. */
export interface Authority {
  /** Where the files are. */
  folder: string
  /** The file with the authority's certificate. */
  file: string
  /** Makes a certificate with its key; returns the files. */
  issue(commonName: string, subjectAltName?: string): { cert: string; key: string }
}

/** Makes an authority in a folder of its own, which the caller deletes. */
export function createAuthority(name: string): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-ca-'))
  const path = (file: string) => join(folder, file)
  const newKey = (subject: string) => ['-newkey', 'rsa:2048', '-nodes', '-subj', `/CN=${subject}`]
  openssl('req', '-x509', ...newKey(name), '-days', '2', '-keyout', path('ca.key'), '-out', path('ca.crt'))
  return {
    folder,
    file: path('ca.crt'),
    issue(commonName, subjectAltName) {
      const [key, request, cert, extensions] = ['key', 'csr', 'crt', 'ext'].map(end =>
        path(`${commonName}.${end}`),
      ) as [string, string, string, string]
      writeFileSync(extensions, subjectAltName ? `subjectAltName=${subjectAltName}` : '')
      openssl('req', ...newKey(commonName), '-keyout', key, '-out', request)
      openssl(
        ...['x509', '-req', '-in', request, '-days', '2', '-extfile', extensions, '-out', cert],
        ...['-CA', path('ca.crt'), '-CAkey', path('ca.key'), '-CAcreateserial'],
      )
      return { cert, key }
    },
  }
}

function openssl(...args: string[]) {
  const { exitCode, stderr } = Bun.spawnSync(['openssl', ...args])
  if (exitCode !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`)
}

export const read = (path: string) => readFileSync(path, 'utf8')
