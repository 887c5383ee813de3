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
const passedOn = (about: string): Parameter => ({ handling: 'passed on', about })
const ignored = (about: string, values?: Parameter['values']): Parameter => ({
  handling: 'ignored',
  values,
  about,
})
const refused = (about: string): Parameter => ({ handling: 'refused', about })

const libpqOnly = 'only libpq needs it'
const keepalive = 'connections have a keep-alive of 60 s'
const otherTool = (tool: string) => ignored(`an option of ${tool}`)
const oursDecides = passedOn('the service’s own value decides')

/** Every parameter that an address may have after its `?`. docs/settings.md shows this table. */
export const parameters: Record<string, Parameter> = {
  host: used('a host, or the folder of a socket; several with commas. Replaces the hosts before the `/`'),
  hostaddr: used('the IP addresses of the hosts, which are then not looked up'),
  port: used('a port for each host, or one for all; by default 5432'),
  dbname: used('the database'),
  user: used('the role'),
  password: used('its password'),
  sslmode: used('see below; by default `prefer`', sslModes),
  ssl: used('`true` is `sslmode=require`, `false` is `disable`', ['true', 'false']),
  sslrootcert: used('a PEM file with the authorities to trust, or `system` for those of the machine'),
  sslcert: used('a PEM file with the client’s certificate'),
  sslkey: used('a PEM file with its key'),
  sslpassword: used('the password of that key'),
  sslnegotiation: used('`direct` begins TLS without asking first (PostgreSQL 17)', ['postgres', 'direct']),
  ssl_min_protocol_version: used('the lowest version of TLS', tlsVersions),
  ssl_max_protocol_version: used('the highest version of TLS', tlsVersions),
  target_session_attrs: used(
    '`read-write` and `primary`: a read-only server is passed over, which is the default with several hosts; `any`: it is used',
    ['any', 'read-write', 'primary'],
  ),
  connect_timeout: used(
    'seconds for connecting. Requests never wait for more than 1.5 of them; migrations do',
    wholeNumber,
  ),
  application_name: used('shown in `pg_stat_activity`; by default `todo-api`'),
  fallback_application_name: used('in its place when `application_name` is not there'),
  options: used('command-line options of the session: `-c name=value`, or a host’s own (`endpoint=…`)'),

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
  gssencmode: ignored('there is no GSS encryption', ['disable', 'prefer']),
  krbsrvname: ignored(libpqOnly),
  gsslib: ignored(libpqOnly),
  gssdelegation: ignored(libpqOnly, ['0', '1']),
  keepalives: ignored(keepalive, ['0', '1']),
  keepalives_idle: ignored(keepalive, wholeNumber),
  keepalives_interval: ignored(keepalive, wholeNumber),
  keepalives_count: ignored(keepalive, wholeNumber),
  tcp_user_timeout: ignored('silent connections are dropped after 2 s', wholeNumber),
  load_balance_hosts: ignored('hosts are tried in their order', ['disable', 'random']),
  sslcompression: ignored('there is none', ['0', '1']),
  sslsni: ignored('the name is always sent', ['0', '1']),
  sslcertmode: ignored('a certificate is sent when the server asks', ['disable', 'allow', 'require']),
  min_protocol_version: ignored(libpqOnly),
  max_protocol_version: ignored(libpqOnly),

  pgbouncer: otherTool('Prisma; a pooling proxy is noticed without it'),
  schema: otherTool('Prisma; for another schema: `search_path`'),
  connection_limit: otherTool('Prisma; here: `DATABASE_POOL_SIZE`'),
  pool_timeout: otherTool('Prisma'),
  socket_timeout: otherTool('Prisma'),
  statement_cache_size: otherTool('Prisma'),
  supa: otherTool('Supabase’s integrations'),
  workaround: otherTool('Supabase’s integrations'),
  uselibpqcompat: otherTool('node-postgres'),
  max: otherTool('postgres.js; here: `DATABASE_POOL_SIZE`'),
  idle_timeout: otherTool('postgres.js'),
  max_lifetime: otherTool('postgres.js'),
  prepare: otherTool('postgres.js; here: `DATABASE_PREPARE`'),
  pool: otherTool('Rails; here: `DATABASE_POOL_SIZE`'),
  prepared_statements: otherTool('Rails; here: `DATABASE_PREPARE`'),
  pool_max_conns: otherTool('pgx; here: `DATABASE_POOL_SIZE`'),
  pool_min_conns: otherTool('pgx'),
  default_query_exec_mode: otherTool('pgx'),
  binary_parameters: otherTool('lib/pq'),
  preparethreshold: otherTool('JDBC'),

  sslaccept: refused('write `sslmode`: `verify-full` for `strict`, `require` for `accept_invalid_certs`'),
  sslidentity: refused('write `sslcert` and `sslkey`'),
  sslcrl: refused('lists of withdrawn certificates are not read'),
  sslcrldir: refused('lists of withdrawn certificates are not read'),
  require_auth: refused('it cannot be kept here; `sslmode=verify-full` says who the server is'),
  requirepeer: refused('it cannot be kept here; protect the folder of the socket'),
  passfile: refused('write the password into the address, and the address into a file: `DATABASE_URL_FILE`'),
  service: refused('write the address in full'),
  servicefile: refused('write the address in full'),
  replication: refused('the service needs an ordinary session'),
}

export const isKnown = (name: string) => Object.hasOwn(parameters, name)
