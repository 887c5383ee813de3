import { createReadStream, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { create, Unpack } from 'tar'
import { version } from '../../../package.json'
import { clusterName, secretName } from '../../config/data-dir.ts'
import type { Output } from '../atomic-file.ts'

/** Names the version of todo-api that made a backup. */
const headerName = 'backup.json'
/** All users and tasks as `todo-api export` writes them, for a PostgreSQL that cannot open the cluster. */
export const exportName = 'export.ndjson'

/** Packs a folder with a cluster, and with a secret and an export if it has them. Returns the size of the archive. */
export async function pack(folder: string, output: Output): Promise<number> {
  writeFileSync(join(folder, headerName), `${JSON.stringify({ program: version })}\n`, { mode: 0o600 })
  const names = [headerName, secretName, exportName, clusterName]
  const present = names.filter(name => existsSync(join(folder, name)))
  let bytes = 0
  // `portable` leaves the owners out: the restored files belong to the user who restores.
  for await (const chunk of create({ cwd: folder, gzip: { level: 6 }, portable: true }, present)) {
    await output.write(chunk)
    bytes += chunk.length
  }
  return bytes
}

/** Unpacks a backup; `-` is stdin. Throws an Error with one line when it is not one, or damaged. */
export async function unpack(file: string, folder: string): Promise<void> {
  let foreign = false
  const filter = (path: string, entry: object) => {
    const belongs = [headerName, secretName, exportName].includes(path) || path.startsWith(`${clusterName}/`)
    const isOurs = belongs && 'type' in entry && (entry.type === 'File' || entry.type === 'Directory')
    if (!isOurs) foreign = true
    return isOurs
  }
  try {
    await feed(
      file === '-' ? process.stdin : createReadStream(file),
      new Unpack({ cwd: folder, strict: true, preserveOwner: false, filter }),
    )
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && !existsSync(file)) throw new Error(`there is no file ${file}`)
    if (['EACCES', 'EPERM', 'EISDIR', 'EIO'].includes(code ?? '')) {
      throw new Error(`${file} cannot be read: ${message}`, { cause: error })
    }
    if (code === 'ENOSPC') throw new Error('the disk is full; nothing was changed')
    throw new Error(`${file} is not a backup, or is damaged: ${message}`, { cause: error })
  }
  if (foreign || !existsSync(join(folder, clusterName, 'PG_VERSION'))) {
    throw new Error(`${file} is not a backup, or is damaged: it does not have the files of a backup`)
  }
}

/** What made an unpacked backup, in words. */
export function makerOf(folder: string): string {
  const { program }: { program: string } = JSON.parse(readFileSync(join(folder, headerName), 'utf8'))
  return `todo-api ${program}`
}

/** Node's `pipeline` refuses the unpacker, which is not one of its streams. */
function feed(source: Readable, unpacker: Unpack): Promise<void> {
  const done = Promise.withResolvers<void>()
  source.on('error', done.reject)
  unpacker.on('error', done.reject).on('close', done.resolve)
  source.pipe(unpacker)
  return done.promise
}
