/** What is done with a parameter of the address. */
export interface Parameter {
  handling: 'used' | 'passed on' | 'ignored' | 'refused'
  /** What it does, or what to write in its place. */
  about: string
  /** The values that it may have; by default any text. */
  values?: readonly string[] | typeof wholeNumber | undefined
}

export const wholeNumber = 'a whole number'
const tlsVersions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const
const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof sslModes)[number]

/** Each row is for the parameters of one meaning. */
const rows: [names: string, Parameter['handling'], about: string, values?: Parameter['values']][] = [
  ['host hostaddr port dbname user password sslcert sslkey sslpassword', 'used', 'as in libpq'],
  ['fallback_application_name options', 'used', 'as in libpq'],
  ['application_name', 'used', 'shown in `pg_stat_activity`; by default `todo-api`'],
  ['ssl_min_protocol_version ssl_max_protocol_version', 'used', 'as in libpq', tlsVersions],
  ['sslmode', 'used', 'see above', sslModes],
  ['ssl', 'used', '`true` is `sslmode=require`, `false` is `disable`', ['true', 'false']],
  ['sslrootcert', 'used', 'PEM file of the trusted authorities; `system` for the machine’s'],
  ['sslnegotiation', 'used', '`direct` begins with TLS (PostgreSQL 17)', ['postgres', 'direct']],
  [
    'target_session_attrs',
    'used',
    '`read-write`, `primary`: skips read-only servers, the default with several hosts',
    ['any', 'read-write', 'primary'],
  ],
  ['connect_timeout', 'used', 'seconds; requests wait at most 1.5 of them, migrations all', wholeNumber],

  ['search_path', 'passed on', 'its first schema has the tables; by default `public`'],
  ['role work_mem', 'passed on', 'a parameter of the session'],
  ['timezone datestyle client_encoding', 'passed on', 'the service’s own value decides'],
  ['statement_timeout lock_timeout', 'passed on', 'the service’s own value decides'],
  ['idle_in_transaction_session_timeout', 'passed on', 'the service’s own value decides'],

  // What only libpq needs.
  ['channel_binding', 'ignored', 'TLS is used without it', ['disable', 'prefer', 'require']],
  ['gssencmode', 'ignored', 'no effect', ['disable', 'prefer']],
  ['krbsrvname gsslib', 'ignored', 'no effect'],
  ['gssdelegation keepalives', 'ignored', 'no effect', ['0', '1']],
  ['keepalives_idle keepalives_interval keepalives_count', 'ignored', 'no effect', wholeNumber],
  ['tcp_user_timeout', 'ignored', 'no effect', wholeNumber],
  ['load_balance_hosts', 'ignored', 'no effect', ['disable', 'random']],
  ['sslcompression sslsni', 'ignored', 'no effect', ['0', '1']],
  ['sslcertmode', 'ignored', 'no effect', ['disable', 'allow', 'require']],
  ['min_protocol_version max_protocol_version', 'ignored', 'no effect'],

  // What other tools need.
  ['pgbouncer pool_timeout socket_timeout statement_cache_size supa workaround', 'ignored', 'no effect'],
  ['uselibpqcompat idle_timeout max_lifetime pool_min_conns', 'ignored', 'no effect'],
  ['default_query_exec_mode binary_parameters preparethreshold', 'ignored', 'no effect'],
  ['connection_limit max pool pool_max_conns', 'ignored', 'set `DATABASE_POOL_SIZE` instead'],
  ['prepare prepared_statements', 'ignored', 'set `DATABASE_PREPARE` instead'],
  ['schema', 'ignored', 'set `search_path` instead'],

  [
    'sslaccept',
    'refused',
    'write `sslmode`: `verify-full` for `strict`, `require` for `accept_invalid_certs`',
  ],
  ['sslidentity', 'refused', 'write `sslcert` and `sslkey`'],
  ['sslcrl sslcrldir', 'refused', 'revocation lists are not read'],
  ['require_auth', 'refused', 'not supported; `sslmode=verify-full` proves who the server is'],
  ['requirepeer', 'refused', 'not supported; protect the folder of the socket'],
  ['passfile', 'refused', 'write the address, password included, into a file: `DATABASE_URL_FILE`'],
  ['service servicefile', 'refused', 'write the address in full'],
  ['replication', 'refused', 'the service needs an ordinary session'],
]

/** Every parameter that an address may have after its `?`. docs/settings.md shows those that are not refused. */
export const parameters = new Map<string, Parameter>(
  rows.flatMap(([names, handling, about, values]) =>
    names.split(' ').map(name => [name, { handling, about, values }] as const),
  ),
)
