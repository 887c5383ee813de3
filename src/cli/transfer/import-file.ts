import { t } from 'elysia'
import { instantInput, integer, nullable, text } from '../../http/schema.ts'
import { normalizeEmail } from '../../modules/auth/service.ts'
import { toPatch } from '../../modules/tasks/rows.ts'
import {
  arrivingVersions,
  batchRows,
  type Incoming,
  type Loader,
  type UserRow,
  type VersionedRow,
} from './bulk-insert.ts'
import { createCheck, isPasswordHash } from './check-schema.ts'
import { exportFormat, type LineType } from './export.ts'

/** Far longer than any line that `export` writes. */
const lineBytesMax = 1024 * 1024

/** What is wrong with a line. The batch that holds it did not go in; what came before did. */
export class LineError extends Error {
  override readonly name = 'LineError'
}

interface Line {
  number: number
  /** As the line says it. */
  type: unknown
  value: Record<string, unknown>
}

type Entry = Line & { type: LineType }

/** Reads what `export` wrote and writes it, a batch at a time. Throws `LineError` at the first batch with a fault. */
export async function importFile(
  chunks: AsyncIterable<Uint8Array>,
  loader: Loader,
  done: (rows: number) => void,
) {
  const seen: Record<LineType, number> = { user: 0, task: 0, tombstone: 0 }
  const versions: { user_id: string; last_version: number; forgotten_version: number }[] = []
  let batch: Entry[] = []
  let end: Line | undefined
  let formatVersion: number

  async function flush() {
    const lines = batch
    batch = []
    check(lines)
    const users = lines.filter(({ type }) => type === 'user').map(toUser)
    await loader.users(users)
    await loader.rows(lines.filter(({ type }) => type !== 'user').map(toRow))
    for (const { columns } of users) versions.push(finalVersions(columns))
    for (const { type } of lines) seen[type]++
    done(lines.length)
  }

  for await (const line of parse(splitLines(chunks))) {
    if (line.number === 1) {
      formatVersion = checkHeader(line)
      continue
    }
    if (end) throw new LineError(`line ${line.number}: nothing may follow the line of type "end"`)
    if (batch.length === batchRows) await flush()
    if (line.type === 'end') end = line
    else if (isEntry(line)) batch.push(formatVersion! === 1 ? fromVersion1(line) : line)
    else throw new LineError(`line ${line.number}: its type is none that this program knows`)
  }
  await flush()
  const isComplete = end && Object.entries(seen).every(([type, count]) => end.value[type] === count)
  if (!isComplete) throw new LineError('the file is not complete: its last line does not say what is in it')
  await loader.finish(versions)
}

/** Returns the version of the file's format. */
function checkHeader({ value }: Line): number {
  if (value.format !== exportFormat.format) throw new LineError('line 1: this is no file that `export` wrote')
  if (value.version !== 1 && value.version !== exportFormat.version) {
    throw new LineError('line 1: a newer program wrote this file; import it with that one')
  }
  return value.version
}

/** Format 1 called `last_version` and `forgotten_version` of a user `seq` and `pruned_through`. */
function fromVersion1({ value, ...line }: Entry): Entry {
  if (line.type !== 'user') return { ...line, value }
  const { seq, pruned_through, ...others } = value
  return { ...line, value: { ...others, last_version: seq, forgotten_version: pruned_through } }
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const id = text({ pattern: uuidPattern, format: 'uuid' })
const moment = instantInput()
/** Half of what a number in JSON can be: room for all changes to come. */
const version = integer({ minimum: 0, maximum: 2 ** 52 })

/**
 * What any export holds. What is in the file was accepted once, so it is not judged by the rules for requests, which
 * may have become stricter since: the database has its own, and refuses single rows by them.
 */
const checks: Record<LineType, (value: unknown) => string | undefined> = {
  user: createCheck(
    t.Object({
      id,
      email: text(),
      password_hash: text(),
      disabled_at: nullable(moment),
      created_at: moment,
      updated_at: moment,
      last_version: version,
      forgotten_version: version,
    }),
  ),
  task: createCheck(
    t.Object({
      id,
      user_id: id,
      title: text(),
      description: t.Optional(nullable(text())),
      status: t.Optional(text()),
      priority: t.Optional(integer()),
      due_at: t.Optional(nullable(moment)),
      tags: t.Optional(t.Array(text())),
      position: t.Optional(text()),
      completed_at: nullable(moment),
      created_at: moment,
      updated_at: moment,
      deleted_at: nullable(moment),
      version,
    }),
  ),
  tombstone: createCheck(t.Object({ id, user_id: id, version, deleted_at: moment })),
}

const isEntry = (line: Line): line is Entry => Object.keys(checks).some(type => type === line.type)

/** Throws with everything that is wrong in a batch. */
function check(lines: readonly Entry[]) {
  const problems = lines.flatMap(({ number, type, value }) => {
    const problem = checks[type](value) ?? hashProblem(type, value)
    return problem ? [`line ${number}: ${problem}`] : []
  })
  if (problems.length > 0) throw new LineError(problems.join('\n'))
}

const hashProblem = (type: string, value: Record<string, unknown>) =>
  type === 'user' && !isPasswordHash(value.password_hash as string)
    ? 'password_hash: no bcrypt hash'
    : undefined

type User = UserRow['columns'] & { email: string; last_version: number; forgotten_version: number }

function toUser({ number, value }: Entry): Incoming<UserRow> & { columns: User } {
  const columns = { ...value, normalized_email: normalizeEmail(value.email as string) } as unknown as User
  return { label: `line ${number}`, columns, versions: arrivingVersions(columns.last_version) }
}

const finalVersions = ({ id, last_version, forgotten_version }: User) => ({
  user_id: id,
  last_version,
  forgotten_version,
})

function toRow({ number, type, value }: Entry): Incoming<VersionedRow> {
  const table = type === 'task' ? 'task' : 'tombstone'
  const columns = (table === 'task' ? { ...value, ...toPatch(value) } : value) as VersionedRow['columns']
  return { label: `line ${number}`, table, columns }
}

async function* parse(lines: AsyncIterable<string>): AsyncGenerator<Line> {
  let number = 0
  for await (const line of lines) {
    number++
    const value = parseObject(line)
    if (!value) throw new LineError(`line ${number}: this is no JSON object`)
    yield { number, type: value.type, value }
  }
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** One line at a time, whatever the pieces are that the file comes in. */
async function* splitLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let rest = ''
  let count = 0
  try {
    for await (const chunk of chunks) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = lines.pop()!
      count += lines.length
      yield* lines
      if (rest.length > lineBytesMax)
        throw new LineError(`line ${count + 1}: longer than ${lineBytesMax} bytes`)
    }
    decoder.decode()
  } catch (error) {
    throw error instanceof TypeError ? new LineError(`after line ${count}: this is no UTF-8`) : error
  }
  // Without a line break at its end the file was cut off, which `import` says of a file without its last line.
  if (rest !== '') yield rest
}
