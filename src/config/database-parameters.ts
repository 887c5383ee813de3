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

const instead = (setting: string) => ignored(`set \`${setting}\` instead`)
/** What only libpq needs, or other tools. */
const noEffect = (values?: Parameter['values']) => ignored('no effect', values)
const oursDecides = passedOn('the service’s own value decides')

/** Every parameter that an address may have after its `?`. docs/settings.md shows those that are not refused. */
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
  gssencmode: noEffect(['disable', 'prefer']),
  krbsrvname: noEffect(),
  gsslib: noEffect(),
  gssdelegation: noEffect(['0', '1']),
  keepalives: noEffect(['0', '1']),
  keepalives_idle: noEffect(wholeNumber),
  keepalives_interval: noEffect(wholeNumber),
  keepalives_count: noEffect(wholeNumber),
  tcp_user_timeout: noEffect(wholeNumber),
  load_balance_hosts: noEffect(['disable', 'random']),
  sslcompression: noEffect(['0', '1']),
  sslsni: noEffect(['0', '1']),
  sslcertmode: noEffect(['disable', 'allow', 'require']),
  min_protocol_version: noEffect(),
  max_protocol_version: noEffect(),

  connection_limit: instead('DATABASE_POOL_SIZE'),
  max: instead('DATABASE_POOL_SIZE'),
  pool: instead('DATABASE_POOL_SIZE'),
  pool_max_conns: instead('DATABASE_POOL_SIZE'),
  prepare: instead('DATABASE_PREPARE'),
  prepared_statements: instead('DATABASE_PREPARE'),
  schema: instead('search_path'),
  pgbouncer: noEffect(),
  pool_timeout: noEffect(),
  socket_timeout: noEffect(),
  statement_cache_size: noEffect(),
  supa: noEffect(),
  workaround: noEffect(),
  uselibpqcompat: noEffect(),
  idle_timeout: noEffect(),
  max_lifetime: noEffect(),
  pool_min_conns: noEffect(),
  default_query_exec_mode: noEffect(),
  binary_parameters: noEffect(),
  preparethreshold: noEffect(),

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
