import { readFileSync } from 'node:fs'
import type { ConnectionOptions, SecureVersion } from 'node:tls'
import { isAddress } from '../lib/client-address.ts'
import { similarName } from '../lib/nearest.ts'
import { type Parameter, parameters, type SslMode, wholeNumber } from './database-parameters.ts'

/** One server that an address names. */
export interface Host {
  /** A name or an IP address; or the folder of a socket, which begins with `/`. */
  name: string
  port: number
  /** Where to connect to, when that is not to be looked up by the name. */
  address?: string | undefined
}

/** Whether a server is reached over a socket of the file system, where there is no TLS. */
export const isSocket = ({ name, address }: Host) => !address && name.startsWith('/')

/** How a connection to a server is made. */
export type Encryption = 'plain' | 'tls'

/** What `DATABASE_URL` says. */
export type DatabaseAddress = ReturnType<typeof parseDatabaseUrl>

/** All mistakes of an address, without anything that it holds. */
export class DatabaseUrlError extends Error {
  override readonly name = 'DatabaseUrlError'
  constructor(readonly mistakes: string[]) {
    super(`The address of the database ${mistakes.join('; ')}`)
  }
}

const looksLike = 'must look like postgres://user:password@host:5432/name'
const notEncoded =
  'holds a character that must be percent-encoded, as a rule in the password: write % as %25, @ as %40, / as %2F, : as %3A, ? as %3F, # as %23'

/**
 * Reads an address as libpq does, file names in it included. Throws `DatabaseUrlError`.
 *
 * pg-connection-string, the library for this, knows one host without its own port, takes a password that is not encoded
 * for a part of the host, reads `sslmode` as libpq does only if the address asks for that, and checks no value.
 */
export function parseDatabaseUrl(url: string) {
  const parts = split(url)
  const { values, passedOn, ignored, mistakes } = readParameters(parts.query)
  const mistake = (message: string) => void mistakes.push(message)

  const hosts = readHosts(parts.authority, values, mistake)
  const tls = readTls(values, mistake)
  if (mistakes.length > 0) throw new DatabaseUrlError(mistakes)
  const target = values.target_session_attrs
  /** Parameters of the session, their names in small letters. */
  const session: Record<string, string> = {
    application_name: values.application_name ?? values.fallback_application_name ?? 'todo-api',
    ...(values.options && { options: values.options }),
    ...passedOn,
  }
  return {
    hosts,
    /** Empty: what the environment says, as with `PGUSER`. So are the next two. */
    user: values.user ?? parts.user,
    password: values.password ?? parts.password,
    database: values.dbname ?? parts.database,
    ...tls,
    /** Whether a read-only server is passed over. */
    mustBeWritable: target ? target !== 'any' : hosts.length > 1,
    connectTimeoutSeconds: Number(values.connect_timeout) || undefined,
    session,
    /** Names of the parameters that mean nothing here. */
    ignored,
  }
}

/** Takes an address apart where libpq does: a password ends at the first `@`, and may hold no `/`. */
function split(url: string) {
  const [, driver, rest] = /^postgres(?:ql)?(\+\w+)?:\/\/(.+)$/s.exec(url) ?? []
  if (driver) throw new DatabaseUrlError([`${looksLike}, without the name of a driver`])
  if (rest === undefined) throw new DatabaseUrlError([looksLike])
  const [, login, target] = /^(?:([^@/]*)@)?(.*)$/s.exec(rest)!
  if (target!.includes('@')) throw new DatabaseUrlError([notEncoded])
  const [, authority, path, query] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(target!)!
  const [, user, password] = /^([^:]*)(?::(.*))?$/s.exec(login ?? '')!
  return {
    user: decode(user),
    password: decode(password),
    authority: authority!,
    database: decode(path),
    query: query ?? '',
  }
}

function decode(text: string | undefined): string {
  try {
    const decoded = decodeURIComponent(text ?? '')
    if (!decoded.includes('\0')) return decoded
  } catch {
    // A `%` that stands for itself.
  }
  throw new DatabaseUrlError([notEncoded])
}

function readParameters(query: string) {
  const values: Record<string, string> = {}
  const passedOn: Record<string, string> = {}
  const ignored: string[] = []
  const mistakes: string[] = []
  for (const pair of query.split('&').filter(Boolean)) {
    const [, given, value] = /^([^=]*)=?(.*)$/s.exec(pair)!
    // PostgreSQL and JDBC write some names with capitals.
    const name = given!.toLowerCase()
    const parameter = parameters.get(name)
    const text = decode(value)
    if (parameter?.handling === 'used') values[name] = text
    // One with a dot belongs to an extension of the server.
    else if (parameter?.handling === 'passed on' || /^\w+\.\w+$/.test(name)) passedOn[name] = text
    else if (parameter?.handling === 'ignored') ignored.push(name)
    else if (parameter) mistakes.push(`has ${name}: ${parameter.about.replaceAll('`', '')}`)
    else mistakes.push(unknownParameter(name))
    const fault = parameter && faultOf(text, parameter.values)
    if (fault) mistakes.push(`has ${name} with another value than ${fault}`)
  }
  return { values, passedOn, ignored, mistakes }
}

function faultOf(value: string, allowed: Parameter['values']): string | undefined {
  if (allowed === undefined) return undefined
  if (allowed === wholeNumber) return /^\d{1,9}$/.test(value) ? undefined : wholeNumber
  return allowed.includes(value) ? undefined : allowed.join(', ')
}

/** Names of an address may be parts of a secret: only what looks like a name is repeated. */
function unknownParameter(name: string): string {
  const shown = /^[a-z][a-z_]{1,40}$/.test(name) ? `the unknown parameter ${name}` : 'an unknown parameter'
  const similar = similarName(name, [...parameters.keys()])
  const hint = similar === undefined ? '' : `; the nearest is ${similar}`
  return `has ${shown}${hint}; parameters of the session go into options=-c%20name%3Dvalue`
}

function readHosts(
  authority: string,
  { host, hostaddr, port }: Record<string, string>,
  mistake: Mistake,
): Host[] {
  const named = authority.split(',').map(readHost)
  const names = host?.split(',') ?? named.map(({ name }) => name)
  const addresses = hostaddr?.split(',') ?? []
  const ports = port?.split(',') ?? named.map(({ port }) => port)
  if (names.some(name => !name) && addresses.length === 0) {
    mistake(`${looksLike}; for a socket postgres:///name?host=/var/run/postgresql`)
  }
  if (names.some(name => !name.startsWith('/') && /[\s:[\]]/.test(name) && !isAddress(name)))
    mistake(looksLike)
  if (!(ports.length === 1 || ports.length === names.length)) mistake('has not as many ports as hosts')
  if (!(addresses.length === 0 || addresses.length === names.length)) {
    mistake('has not as many hostaddr as hosts')
  }
  const numbers = ports.map(text => (text ? Number(/^\d{1,5}$/.exec(text)?.[0]) : 5432))
  if (!numbers.every(number => number > 0 && number < 65536)) {
    mistake('has a port that is no number from 1 to 65535 (an IPv6 address stands in brackets: [::1])')
  }
  return names.map((name, i) => ({
    name: name || addresses[i]!,
    port: numbers.length === 1 ? numbers[0]! : numbers[i]!,
    address: addresses[i],
  }))
}

function readHost(text: string) {
  const [, ipv6, name, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/s.exec(text) ?? []
  return { name: ipv6 ?? decode(name), port: port ?? '' }
}

const encryptions: Record<SslMode, readonly Encryption[]> = {
  disable: ['plain'],
  allow: ['plain', 'tls'],
  prefer: ['tls', 'plain'],
  require: ['tls'],
  'verify-ca': ['tls'],
  'verify-full': ['tls'],
}

function readTls(values: Record<string, string>, mistake: Mistake) {
  const { ssl, sslrootcert, sslcert, sslkey, sslpassword, sslnegotiation } = values
  const isSystem = sslrootcert === 'system'
  const given = (values.sslmode ?? (ssl && (ssl === 'true' ? 'require' : 'disable'))) as SslMode | undefined
  const asked = given ?? (isSystem ? 'verify-full' : 'prefer')
  if (isSystem && asked !== 'verify-full') mistake('has sslrootcert=system, which needs sslmode=verify-full')
  // As libpq does: `require` with a root certificate verifies the chain.
  const mode = asked === 'require' && sslrootcert ? 'verify-ca' : asked
  const isVerified = mode.startsWith('verify-')
  const isDirectTls = sslnegotiation === 'direct'
  if (isDirectTls && encryptions[mode]?.includes('plain')) {
    mistake('has sslnegotiation=direct, which needs sslmode=require or more')
  }
  if (!sslcert !== !sslkey) mistake('has one of sslcert and sslkey, and needs both')

  const read = (name: string) => readFile(name, values[name], mistake)
  const ca = isSystem ? systemAuthorities() : read('sslrootcert')
  const [cert, key] = [read('sslcert'), read('sslkey')]
  const own = { cert, key, passphrase: sslpassword }
  if (ca && !isUsable({ ca })) mistake('has sslrootcert with a file that is no PEM certificate')
  if (cert && key && !isUsable(own)) {
    mistake('has sslcert and sslkey with files that do not belong together, or a wrong sslpassword')
  }
  const tls: ConnectionOptions = {
    rejectUnauthorized: isVerified,
    ...(mode === 'verify-ca' && { checkServerIdentity: () => undefined }),
    ...(ca && { ca }),
    ...(cert && key && own),
    ...(values.ssl_min_protocol_version && { minVersion: values.ssl_min_protocol_version as SecureVersion }),
    ...(values.ssl_max_protocol_version && { maxVersion: values.ssl_max_protocol_version as SecureVersion }),
    ...(isDirectTls && { ALPNProtocols: ['postgresql'] }),
  }
  return {
    /** Tried in this order. */
    encryption: encryptions[mode],
    /** Whether TLS begins without asking the server first. */
    isDirectTls,
    tls,
  }
}

type Mistake = (message: string) => void

function readFile(name: string, path: string | undefined, mistake: Mistake): string | undefined {
  if (!path) return undefined
  try {
    const content = readFileSync(path, 'utf8')
    if (content) return content
    mistake(`has ${name} with a file that is empty`)
  } catch (error) {
    mistake(`has ${name} with a file that cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
  return undefined
}

/** Node's TLS, loaded when it is needed: the port opens sooner without it. */
const nodeTls = () => process.getBuiltinModule('node:tls')

/** A small container has none; those that Mozilla trusts are built in. */
function systemAuthorities(): string[] | undefined {
  const authorities = nodeTls().getCACertificates('system')
  return authorities.length > 0 ? authorities : undefined
}

function isUsable(options: ConnectionOptions): boolean {
  try {
    nodeTls().createSecureContext(options)
    return true
  } catch {
    return false
  }
}
