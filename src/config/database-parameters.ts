/** What is done with a parameter of the address. */
export interface Parameter {
  handling: 'used' | 'passed on' | 'ignored' | 'refused'
  /** The values that it may have; by default any text. */
  values?: readonly string[] | typeof wholeNumber | undefined
  /** What it does, or what to write in its place. */
  about: string
}

export const wholeNumber = 'a whole number'
const tlsVersions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const
const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof sslModes)[number]

const used = (about: string, values?: Parameter['values']): Parameter => ({ handling: 'used', values, about })
const asInLibpq = (values?: Parameter['values']) => used('as in libpq', values)
const passedOn = (about: string): Parameter => ({ handling: 'passed on', about })
const ignored = (about: string, values?: Parameter['values']): Parameter => ({
  handling: 'ignored',
  values,
  about,
})
const refused = (about: string): Parameter => ({ handling: 'refused', about })

const libpqOnly = 'means nothing here'
const instead = (setting: string) => ignored(`of other tools; set \`${setting}\``)
const otherTool = ignored('of other tools')
const oursDecides = passedOn('the service’s own value decides')

/** Every parameter that an address may have after its `?`. docs/settings.md shows this table. */
export const parameters: Record<string, Parameter> = {
  host: asInLibpq(),
  hostaddr: asInLibpq(),
  port: asInLibpq(),
  dbname: asInLibpq(),
  user: asInLibpq(),
  password: asInLibpq(),
  sslcert: asInLibpq(),
  sslkey: asInLibpq(),
  sslpassword: asInLibpq(),
  application_name: used('shown in `pg_stat_activity`; by default `todo-api`'),
  fallback_application_name: asInLibpq(),
  options: asInLibpq(),
  ssl_min_protocol_version: asInLibpq(tlsVersions),
  ssl_max_protocol_version: asInLibpq(tlsVersions),
  sslmode: used('see above', sslModes),
  ssl: used('`true` is `sslmode=require`, `false` is `disable`', ['true', 'false']),
  sslrootcert: used('PEM file of the trusted authorities; `system` for the machine’s'),
  sslnegotiation: used('`direct` begins with TLS (PostgreSQL 17)', ['postgres', 'direct']),
  target_session_attrs: used(
    '`read-write`, `primary`: skips read-only servers, the default with several hosts',
    ['any', 'read-write', 'primary'],
  ),
  connect_timeout: used('seconds; requests wait at most 1.5 of them, migrations all', wholeNumber),

  search_path: passedOn('a parameter of the session'),
  role: passedOn('a parameter of the session'),
  work_mem: passedOn('a parameter of the session'),
  timezone: oursDecides,
  datestyle: oursDecides,
  client_encoding: oursDecides,
  statement_timeout: oursDecides,
  lock_timeout: oursDecides,
  idle_in_transaction_session_timeout: oursDecides,

  channel_binding: ignored('TLS is used without it', ['disable', 'prefer', 'require']),
  gssencmode: ignored(libpqOnly, ['disable', 'prefer']),
  krbsrvname: ignored(libpqOnly),
  gsslib: ignored(libpqOnly),
  gssdelegation: ignored(libpqOnly, ['0', '1']),
  keepalives: ignored(libpqOnly, ['0', '1']),
  keepalives_idle: ignored(libpqOnly, wholeNumber),
  keepalives_interval: ignored(libpqOnly, wholeNumber),
  keepalives_count: ignored(libpqOnly, wholeNumber),
  tcp_user_timeout: ignored(libpqOnly, wholeNumber),
  load_balance_hosts: ignored(libpqOnly, ['disable', 'random']),
  sslcompression: ignored(libpqOnly, ['0', '1']),
  sslsni: ignored(libpqOnly, ['0', '1']),
  sslcertmode: ignored(libpqOnly, ['disable', 'allow', 'require']),
  min_protocol_version: ignored(libpqOnly),
  max_protocol_version: ignored(libpqOnly),

  connection_limit: instead('DATABASE_POOL_SIZE'),
  max: instead('DATABASE_POOL_SIZE'),
  pool: instead('DATABASE_POOL_SIZE'),
  pool_max_conns: instead('DATABASE_POOL_SIZE'),
  prepare: instead('DATABASE_PREPARE'),
  prepared_statements: instead('DATABASE_PREPARE'),
  schema: instead('search_path'),
  pgbouncer: otherTool,
  pool_timeout: otherTool,
  socket_timeout: otherTool,
  statement_cache_size: otherTool,
  supa: otherTool,
  workaround: otherTool,
  uselibpqcompat: otherTool,
  idle_timeout: otherTool,
  max_lifetime: otherTool,
  pool_min_conns: otherTool,
  default_query_exec_mode: otherTool,
  binary_parameters: otherTool,
  preparethreshold: otherTool,

  sslaccept: refused('write `sslmode`: `verify-full` for `strict`, `require` for `accept_invalid_certs`'),
  sslidentity: refused('write `sslcert` and `sslkey`'),
  sslcrl: refused('revocation lists are not read'),
  sslcrldir: refused('revocation lists are not read'),
  require_auth: refused('not supported; `sslmode=verify-full` proves who the server is'),
  requirepeer: refused('not supported; protect the folder of the socket'),
  passfile: refused('write the address, password included, into a file: `DATABASE_URL_FILE`'),
  service: refused('write the address in full'),
  servicefile: refused('write the address in full'),
  replication: refused('the service needs an ordinary session'),
}

export const isKnown = (name: string) => Object.hasOwn(parameters, name)
