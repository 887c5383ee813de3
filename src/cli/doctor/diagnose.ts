import { ClusterError } from '../../db/embedded/major.ts'
import { AppError } from '../../lib/errors.ts'

/** What to do about a failure to reach or to use a database: the first whose pattern fits its code and text. */
const cures: readonly [RegExp, string][] = [
  [
    /^28P01 /,
    'correct the password in DATABASE_URL (@ is written %40, / %2F, : %3A, % %25), or set it: alter role … password …',
  ],
  [
    /^28000 .*no encryption/,
    'the server demands TLS: add sslmode=require to DATABASE_URL, or a rule to its pg_hba.conf',
  ],
  [/^28000 .*certificate/, 'the server demands a certificate: add sslcert and sslkey to DATABASE_URL'],
  [
    // Or one of the two above, in another language of the server.
    /^28000 /,
    'correct the user in DATABASE_URL, or add a rule for it to pg_hba.conf of the server; if that demands TLS: sslmode=require, and for a certificate sslcert and sslkey',
  ],
  [/^3D000 /, 'correct the name in DATABASE_URL, or make the database: create database …'],
  [/^42501 /, 'grant the role of DATABASE_URL the rights, or make it the owner: alter database … owner to …'],
  [/^53300 /, 'lower DATABASE_POOL_SIZE or the number of replicas, or raise max_connections'],
  [/^57P0/, 'the server is starting or stopping: try again'],
  [/^25006 /, 'name the primary in DATABASE_URL; if it is named, default_transaction_read_only is on'],
  [
    /^(UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)/,
    'name the file of its authority in DATABASE_URL: sslrootcert=/path/to/ca.crt',
  ],
  [/^CERT_/, 'renew the certificate of the server, or set the clock of this machine'],
  [/^ERR_TLS_CERT_ALTNAME/, 'use the host name of the certificate in DATABASE_URL, or sslmode=verify-ca'],
  [/^TLS_NOT_OFFERED /, 'turn on TLS in the server (ssl = on); on the same machine write sslmode=disable'],
  [
    /^ERR_(SSL|OSSL)/,
    'allow a version of TLS that both have: ssl_min_protocol_version in DATABASE_URL and in the server',
  ],
  [
    /^ENOTFOUND /,
    'correct the host in DATABASE_URL; inside a container it is the name of the other container',
  ],
  [
    /^(EAI_|DNS_|ESERVFAIL|ETIMEOUT)/,
    'the name server does not answer: look at /etc/resolv.conf and the network',
  ],
  [
    /^ECONNREFUSED /,
    'start PostgreSQL, or correct host and port in DATABASE_URL; is it in listen_addresses of the server?',
  ],
  [
    /^(CONNECT_TIMEOUT|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH) /,
    'look at the firewall and at the host in DATABASE_URL',
  ],
  [
    /^ENOENT .*PGSQL/,
    'start PostgreSQL, or correct the folder of the socket (host=…) and the port in DATABASE_URL',
  ],
  [/^EACCES .*PGSQL/, 'let the user of the service into the folder of the socket'],
  [/^NOT_POSTGRESQL /, 'correct the port in DATABASE_URL: 5432 is that of PostgreSQL'],
]

/** What a failure was, and what to do about it if that is known. */
export function diagnose(error: unknown): { about: string; cure: string | undefined } {
  const shown = error instanceof AppError && error.cause instanceof Error ? error.cause : error
  if (shown instanceof ClusterError) return { about: shown.about, cure: shown.cure }
  if (!(shown instanceof Error)) return { about: 'unknown failure', cure: undefined }
  const text = `${'code' in shown ? shown.code : ''} ${shown.message}`
  return { about: shown.message, cure: cures.find(([pattern]) => pattern.test(text))?.[1] }
}
