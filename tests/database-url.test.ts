import { afterAll, beforeAll, describe, expect, mock, test } from 'bun:test'
import * as dns from 'node:dns/promises'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createConnection } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import fc from 'fast-check'
import { type Parameter, parameters } from '../src/config/database-parameters.ts'
import { DatabaseUrlError, isSocket, parseDatabaseUrl } from '../src/config/database-url.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { type Authority, createAuthority, read } from './support/certificates.ts'
import { runCommand } from './support/command.ts'
import { type Running, startExecutable } from './support/executable.ts'
import { listenOnFreePort } from './support/ports.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { authentication, failed, startScriptedServer } from './support/scripted-server.ts'
import { privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'todo-api-database-url-'))
afterAll(() => rmSync(folder, { recursive: true }))

function mistakes(url: string): string[] {
  try {
    parseDatabaseUrl(url)
    return []
  } catch (error) {
    if (!(error instanceof DatabaseUrlError)) throw error
    return error.mistakes
  }
}

test('docs/settings.md lists each parameter that is not refused, with its values; a row for those of one meaning', () => {
  const guide = readFileSync(join(import.meta.dir, '../docs/settings.md'), 'utf8')
  const values = ({ handling, values: of }: Parameter) => {
    // The values of what means nothing here are libpq's.
    if (handling === 'ignored') return ''
    return typeof of === 'string' ? of : (of ?? []).map(value => `\`${value}\``).join(', ')
  }
  const accepted = [...parameters].filter(([, { handling }]) => handling !== 'refused')
  const alike = Map.groupBy(accepted, ([, parameter]) => {
    return `| ${parameter.handling} | ${values(parameter)} | ${parameter.about} |`
  })
  const rows = [...alike].map(
    ([row, entries]) => `| ${entries.map(([name]) => `\`${name}\``).join(', ')} ${row}`,
  )
  const [, listed] = guide.split('| parameter | | values | |\n| --- | --- | --- | --- |\n')

  expect(listed!.trim().split('\n')).toEqual(rows)
})

describe('an address is read as libpq reads it:', () => {
  const host = (name: string, port = 5432) => ({ name, port, address: undefined })

  test.each([
    ['postgres://h/d', [host('h')]],
    ['postgresql://h', [host('h')]],
    ['postgres://h?sslmode=require', [host('h')]],
    ['postgres://u:p@h:6432/d', [host('h', 6432)]],
    ['postgres://[::1]:5433/d', [host('::1', 5433)]],
    ['postgres://h1:1,h2,[::1]:3/d', [host('h1', 1), host('h2'), host('::1', 3)]],
    ['postgres:///d?host=h1,h2&port=1,2', [host('h1', 1), host('h2', 2)]],
    ['postgres:///d?host=h1,h2&port=7', [host('h1', 7), host('h2', 7)]],
    ['postgres://:7/d?host=h', [host('h', 7)]],
    ['postgres://%2Fvar%2Frun%2Fpostgresql/d', [host('/var/run/postgresql')]],
    ['postgres:///d?host=/var/run/postgresql', [host('/var/run/postgresql')]],
    [
      'postgres://u@localhost/d?host=/cloudsql/project:region:instance',
      [host('/cloudsql/project:region:instance')],
    ],
    ['postgres://h/d?hostaddr=127.0.0.1', [{ ...host('h'), address: '127.0.0.1' }]],
    ['postgres:///d?hostaddr=127.0.0.1', [{ ...host('127.0.0.1'), address: '127.0.0.1' }]],
    [
      'postgres://a,b/d?hostaddr=127.0.0.1,::1',
      [
        { ...host('a'), address: '127.0.0.1' },
        { ...host('b'), address: '::1' },
      ],
    ],
  ])('%s', (url, hosts) => {
    expect(parseDatabaseUrl(url).hosts).toEqual(hosts)
  })

  test('user, password and database are decoded, and may be parameters', () => {
    expect(parseDatabaseUrl('postgres://a%40b:p%3A%2F%40%25@h/d%20e')).toMatchObject({
      user: 'a@b',
      password: 'p:/@%',
      database: 'd e',
    })
    expect(parseDatabaseUrl('postgres://h/?user=u&password=p+q&dbname=d')).toMatchObject({
      user: 'u',
      password: 'p+q',
      database: 'd',
    })
    // A parameter wins, and the last one of a name.
    expect(
      parseDatabaseUrl('postgres://a:b@h/c?user=x&user=u&password=p&dbname=d&sslmode=allow&sslmode=disable'),
    ).toMatchObject({ user: 'u', password: 'p', database: 'd', encryption: ['plain'] })
    // Characters that are unmistakable, as psql takes them.
    expect(parseDatabaseUrl('postgres://u:p:#?&!@h/d')).toMatchObject({ user: 'u', password: 'p:#?&!' })
  })

  test('any encoded password arrives', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), password => {
        fc.pre(!password.includes('\0'))
        expect(parseDatabaseUrl(`postgres://u:${encodeURIComponent(password)}@h:1/d`)).toMatchObject({
          password,
          hosts: [host('h', 1)],
        })
      }),
    )
  })

  test.each([
    ['postgres://h/d', ['tls', 'plain'], false],
    ['postgres://h/d?sslmode=disable', ['plain'], false],
    ['postgres://h/d?sslmode=allow', ['plain', 'tls'], false],
    ['postgres://h/d?sslmode=prefer', ['tls', 'plain'], false],
    ['postgres://h/d?sslmode=require', ['tls'], false],
    ['postgres://h/d?ssl=true', ['tls'], false],
    ['postgres://h/d?ssl=false', ['plain'], false],
    ['postgres://h/d?ssl=true&sslmode=allow', ['plain', 'tls'], false],
    ['postgres://h/d?sslmode=verify-ca', ['tls'], true],
    ['postgres://h/d?sslmode=verify-full', ['tls'], true],
    ['postgres://h/d?sslrootcert=system', ['tls'], true],
  ] as const)('%s: the encryption', (url, encryption, rejectUnauthorized) => {
    expect(parseDatabaseUrl(url)).toMatchObject({ encryption, tls: { rejectUnauthorized } })
  })

  test('names are known in capitals, and those with a dot are of extensions', () => {
    expect(
      parseDatabaseUrl('postgres://h/d?TimeZone=Asia/Tokyo&prepareThreshold=0&citus.explain=1'),
    ).toMatchObject({
      session: { timezone: 'Asia/Tokyo', 'citus.explain': '1' },
      ignored: ['preparethreshold'],
    })
  })

  test.each([
    ['', 'todo-api'],
    ['fallback_application_name=b', 'b'],
    ['application_name=a&fallback_application_name=b', 'a'],
  ])('the name of the application with %p is %s', (query, application_name) => {
    expect(parseDatabaseUrl(`postgres://h?${query}`).session).toEqual({ application_name })
  })

  test.each([
    ['a,b', true],
    ['a', false],
    ['a?target_session_attrs=any', false],
    ['a,b?target_session_attrs=any', false],
    ['a?target_session_attrs=primary', true],
  ])('of %s a server that accepts writes is needed: %p', (rest, mustBeWritable) => {
    expect(parseDatabaseUrl(`postgres://${rest}`)).toMatchObject({ mustBeWritable })
  })

  test('a socket is a folder, unless an address says where to connect to', () => {
    const [folder] = parseDatabaseUrl('postgres:///d?host=/run').hosts
    const [addressed] = parseDatabaseUrl('postgres:///d?host=/run&hostaddr=127.0.0.1').hosts
    expect([isSocket(folder!), isSocket(addressed!)]).toEqual([true, false])
  })

  test('the versions of TLS have bounds', () => {
    const query = 'ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=TLSv1.3'
    expect(parseDatabaseUrl(`postgres://h?${query}`).tls).toEqual({
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
    })
  })

  test('the authorities of a machine that has none are those of the runtime', () => {
    const source = JSON.stringify(join(import.meta.dir, '../src/config/database-url.ts'))
    const script = `import { parseDatabaseUrl } from ${source}
      console.log('ca' in parseDatabaseUrl('postgres://h?sslrootcert=system').tls)`
    const { stdout } = Bun.spawnSync([process.execPath, '-e', script], {
      env: { SSL_CERT_FILE: '/dev/null', SSL_CERT_DIR: folder },
    })
    expect(String(stdout)).toBe('false\n')
  })

  test('what only other programs need is ignored by name', () => {
    expect(
      parseDatabaseUrl(
        'postgres://h/d?channel_binding=require&pgbouncer=true&connection_limit=1&schema=public',
      ).ignored,
    ).toEqual(['channel_binding', 'pgbouncer', 'connection_limit', 'schema'])
  })
})

describe('a mistake says what to write, and repeats nothing of the address:', () => {
  test.each([
    [
      'postgres://u:geheim/x@h/d',
      /percent-encoded.* % as %25, @ as %40, \/ as %2F, : as %3A, \? as %3F, # as %23$/,
    ],
    ['postgres://u:12/geheim@h/d', /percent-encoded/],
    ['postgres://u:geheim@x@h/d', /percent-encoded.* @ as %40/],
    ['postgres://u:geheim@x?y=1@h/d', /percent-encoded/],
    ['postgres://u:geheim%x@h/d', /percent-encoded.* % as %25/],
    ['postgres://u:geheim%00x@h/d', /percent-encoded/],
    ['postgres://u@h/d?password=geheim%00x', /percent-encoded/],
    ['postgres://h:geheim/d', /port/],
    ['postgres://::1/d', /port .*\[::1\]/],
    ['postgres://h:0/d', /port/],
    ['postgres://h:65536/d', /port/],
    ['postgres://h%20geheim/d', /must look like/],
    ['postgres://h%5Bgeheim/d', /must look like/],
    ['postgres://h/d?constructor=geheim', /unknown parameter constructor/],
    ['postgres://a,b/d?hostaddr=127.0.0.1', /as many hostaddr as hosts/],
    ['postgres://a:1,b:2/d?host=h', /as many ports/],
    ['postgres:///d?host=h1,h2&port=1,2,3', /as many ports/],
    ['postgres:///d?host=h1,h2,h3&port=1,2', /as many ports/],
    ['postgres:///geheim', /look like.*host=\/var\/run/],
    ['postgresql+psycopg2://u:geheim@h/d', /without the name of a driver/],
    ['host=h password=geheim', /must look like postgres:/],
    ['postgres:/h/geheim', /must look like postgres:/],
    ['postgres://h/d?sslmode=geheim', /sslmode .*disable, allow, prefer, require, verify-ca, verify-full/],
    ['postgres://h/d?sslmode=', /sslmode .*disable, allow, prefer, require, verify-ca, verify-full/],
    ['postgres://h/d?connect_timeout=', /connect_timeout .*whole number/],
    ['postgres://h/d?connect_timeout=geheim', /connect_timeout .*whole number/],
    ['postgres://h/d?connect_timeout=3geheim', /connect_timeout .*whole number/],
    ['postgres://h/d?target_session_attrs=standby', /target_session_attrs .*any, read-write, primary/],
    ['postgres://h/d?gssencmode=require', /gssencmode .*disable, prefer/],
    ['postgres://h/d?sslmod=geheim', /unknown parameter sslmod; the nearest is sslmode/],
    ['postgres://h/d?aplication_name=geheim', /parameter aplication_name; the nearest is application_name/],
    ['postgres://h/d?charset=geheim', /unknown parameter charset; parameters of the session go into options/],
    ['postgres://h/d?statement_mem=geheim', /unknown parameter statement_mem/],
    ['postgres://h/d?Geheim9=1', /an unknown parameter/],
    [`postgres://h/d?${'geheim'.repeat(7)}=1`, /an unknown parameter/],
    ['postgres://h/d?sslaccept=strict', /sslaccept: write sslmode: verify-full/],
    ['postgres://h/d?passfile=/geheim', /passfile: .*DATABASE_URL_FILE/],
    ['postgres://h/d?sslrootcert=/geheim', /sslrootcert .*cannot be read \(ENOENT\)/],
    ['postgres://h/d?sslrootcert=/dev/null', /sslrootcert .*is empty/],
    ['postgres://h/d?sslmode=require&sslrootcert=system', /needs sslmode=verify-full/],
    ['postgres://h/d?sslcert=/geheim', /needs both/],
    ['postgres://h/d?sslkey=/geheim', /needs both/],
    [`postgres://h/d?sslrootcert=${import.meta.path}`, /sslrootcert .*no PEM certificate/],
    [`postgres://h/d?sslcert=${import.meta.path}&sslkey=${import.meta.path}`, /do not belong together/],
    ...['', '&sslmode=allow', '&sslmode=disable'].map(
      mode => [`postgres://h/d?sslnegotiation=direct${mode}`, /needs sslmode=require/] as const,
    ),
  ])('%s', (url, about) => {
    const found = mistakes(url)

    expect(found.join('\n')).toMatch(about)
    expect(found.join('\n').toLowerCase()).not.toContain('geheim')
  })

  test('all at once', () => {
    expect(mistakes('postgres://h:x/d?sslmode=on&sslmod=x&service=s')).toHaveLength(4)
  })

  test('any text is read or refused', () => {
    const part = fc.string({ unit: fc.constantFrom(...'ab:/@?&=%2F[],.#sslmode') })
    fc.assert(
      fc.property(part, text => {
        expect(mistakes(`postgres://${text}`)).toBeArray()
      }),
      { numRuns: 2000 },
    )
  })

  test('a password is never repeated, whatever it holds', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii' }), password => {
        const text = mistakes(`postgres://u:GEHEIM${password}GEHEIM@h/d`).join('\n')
        expect(text).not.toContain('GEHEIM')
      }),
      { examples: [['/?a='], ['@?b&c='], ['?geheim='], ['@h?geheim=']] },
    )
  })
})

/** A server with TLS, SCRAM passwords, client certificates and a socket; its rules, and its authority. */
let authority: Authority
let foreign: Authority
let client: { cert: string; key: string }
let server: PostgresServer
let withoutTls: PostgresServer

const rules = `
local     all  all        scram-sha-256
hostssl   all  certified  all      cert
hostssl   all  demanding  all      scram-sha-256 clientcert=verify-ca
hostssl   all  encrypted  all      scram-sha-256
hostnossl all  plain      all      scram-sha-256
host      all  encrypted,plain,certified,demanding  all  reject
host      all  all        all      scram-sha-256
`

beforeAll(async () => {
  authority = createAuthority('own')
  foreign = createAuthority('foreign')
  const { cert, key } = authority.issue('server', 'DNS:localhost')
  client = authority.issue('certified')
  server = await startPostgresServer({
    parameters: [
      'ssl=on',
      'ssl_ca_file=ca.crt',
      'ssl_max_protocol_version=TLSv1.2',
      'unix_socket_directories=.',
      `listen_addresses=127.0.0.1${hasIpv6 ? ',::1' : ''}`,
    ],
    files: {
      'server.crt': read(cert),
      'server.key': read(key),
      'ca.crt': read(authority.file),
      'pg_hba.conf': rules,
    },
  })
  withoutTls = await startPostgresServer()
  for (const role of ['certified', 'demanding', 'encrypted', 'plain']) {
    await execute(server.url, `create role ${role} login password 'p%/@'`)
  }
}, 90_000)
afterAll(async () => {
  await server?.close()
  await withoutTls?.close()
  for (const { folder } of [authority, foreign]) rmSync(folder, { recursive: true })
})

const hasIpv6 = Object.values(networkInterfaces()).some(of => of?.some(({ address }) => address === '::1'))

/** Asks over one connection; the error is that of the connection. */
async function ask(
  url: string,
  text = 'select current_user, ssl from pg_stat_ssl where pid = pg_backend_pid()',
) {
  const driver = openPostgres({ url, poolSize: 1 })
  try {
    const [row] = await driver.query(text, [])
    return row
  } catch (error) {
    throw (error as Error).cause ?? error
  } finally {
    await driver.close()
  }
}

const password = 'p%25%2F%40'
const at = (role: string, query = '', host = 'localhost') =>
  `postgres://${role}:${password}@${host}:${server.port}/postgres${query && `?${query}`}`

describe('a server with TLS', () => {
  test.each([
    ['encrypted', '', true],
    ['encrypted', 'sslmode=allow', true],
    ['encrypted', 'sslmode=require', true],
    ['plain', '', false],
    ['plain', 'sslmode=allow', false],
    ['plain', 'sslmode=disable', false],
  ])('takes %s with %p (TLS: %p), by a rule of its own', async (role, query, isEncrypted) => {
    expect(await ask(at(role, query))).toEqual([role, isEncrypted])
  })

  test.each([
    ['encrypted', 'sslmode=disable'],
    ['plain', 'sslmode=require'],
    ['demanding', ''],
  ])('refuses %s with %p, by a rule of its own', async (role, query) => {
    await expect(ask(at(role, query))).rejects.toMatchObject({ code: '28000' })
  })

  test('is verified with an authority of its own', async () => {
    for (const mode of ['require', 'verify-ca', 'verify-full']) {
      const query = `sslmode=${mode}&sslrootcert=${authority.file}`
      expect(await ask(at('encrypted', query))).toEqual(['encrypted', true])
    }
  })

  test('is verified with the authority that is in the file when a connection is made', async () => {
    const file = join(foreign.folder, 'replaced.crt')
    copyFileSync(foreign.file, file)
    const url = at('encrypted', `sslmode=verify-full&sslrootcert=${file}`)
    const driver = openPostgres({ url, poolSize: 1 })
    const outcome = () =>
      driver.query('select 1', []).then(
        rows => [...rows],
        ({ cause }) => cause.code,
      )
    try {
      expect(await outcome()).toMatch(/UNABLE_TO_|SELF_SIGNED|CERT_/)
      copyFileSync(authority.file, file)
      await until(async () => Array.isArray(await outcome()))
      // While one is being written, the last one counts.
      writeFileSync(file, '')
      await driver.query('select pg_terminate_backend(pg_backend_pid())', []).catch(() => {})
      await until(async () => Array.isArray(await outcome()))
    } finally {
      await driver.close()
    }
  })

  test('is refused with another authority, and with the usual ones', async () => {
    for (const query of [
      `sslmode=require&sslrootcert=${foreign.file}`,
      `sslmode=verify-ca&sslrootcert=${foreign.file}`,
      `sslmode=verify-full&sslrootcert=${foreign.file}`,
      'sslmode=verify-ca',
      'sslmode=verify-full',
      'sslrootcert=system',
    ]) {
      await expect(ask(at('encrypted', query))).rejects.toMatchObject({
        code: expect.stringMatching(/UNABLE_TO_|SELF_SIGNED|CERT_/),
      })
    }
  })

  test('may have another name with verify-ca, and not with verify-full', async () => {
    const query = (mode: string) => `sslmode=${mode}&sslrootcert=${authority.file}`

    expect(await ask(at('encrypted', query('verify-ca'), '127.0.0.1'))).toEqual(['encrypted', true])
    await expect(ask(at('encrypted', query('verify-full'), '127.0.0.1'))).rejects.toMatchObject({
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    })
    const byAddress = `${query('verify-full')}&hostaddr=127.0.0.1`
    expect(await ask(at('encrypted', byAddress))).toEqual(['encrypted', true])
  })

  test('knows a client by its certificate', async () => {
    const own = `sslcert=${client.cert}&sslkey=${client.key}`

    const url = `postgres://certified@localhost:${server.port}/postgres?sslmode=require&${own}`
    expect(await ask(url)).toEqual(['certified', true])
    expect(await ask(at('demanding', own))).toEqual(['demanding', true])
  })

  test('knows a client by a certificate whose key has a password', async () => {
    const locked = join(folder, 'locked.key')
    Bun.spawnSync(['openssl', 'rsa', '-aes256', '-passout', 'pass:secret', '-in', client.key, '-out', locked])
    const query = (password: string) => `sslcert=${client.cert}&sslkey=${locked}&sslpassword=${password}`

    expect(await ask(at('demanding', query('secret')))).toEqual(['demanding', true])
    expect(mistakes(at('demanding', query('wrong')))).toEqual([expect.stringContaining('sslpassword')])
  })

  test('is refused when its version of TLS is not allowed', async () => {
    expect(await ask(at('encrypted', 'ssl_min_protocol_version=TLSv1.2'))).toEqual(['encrypted', true])
    await expect(
      ask(at('encrypted', 'sslmode=require&ssl_min_protocol_version=TLSv1.3')),
    ).rejects.toMatchObject({ code: expect.stringMatching(/PROTOCOL|TLS|SSL/) })
  })

  test('knows a wrong password', async () => {
    await expect(ask(at('encrypted').replace(password, 'wrong'))).rejects.toMatchObject({ code: '28P01' })
  })

  test('is used without it when that fails and it may be, and else says what failed', async () => {
    const url = (role: string) => at(role, 'ssl_min_protocol_version=TLSv1.3')

    expect(await ask(url('plain'))).toEqual(['plain', false])
    await expect(ask(url('plain').replace(password, 'wrong'))).rejects.toMatchObject({ code: '28P01' })
    await expect(ask(url('encrypted'))).rejects.toMatchObject({
      code: expect.stringMatching(/PROTOCOL|TLS|SSL/),
    })
  })

  test('answers many statements over TLS, each its own', async () => {
    const driver = openPostgres({ url: at('encrypted', 'sslmode=require'), poolSize: 4 })
    const text = 'select $1::int, repeat($2, 20000)'
    const rows = await Promise.all(
      Array.from({ length: 200 }, (_, i) => driver.query(text, [i, String(i % 10)], { prepare: true })),
    )
    await driver.close()

    for (const [i, row] of rows.entries()) expect(row).toEqual([[i, String(i % 10).repeat(20_000)]])
  })
})

/** Takes the TLS off in front of a server, as PostgreSQL 17 does by itself; returns the query for its address. */
async function startTlsFront(port: number) {
  const { cert, key } = authority.issue('direct', 'DNS:localhost,IP:127.0.0.1')
  const protocols: unknown[] = []
  const settings = { cert: read(cert), key: read(key), ALPNProtocols: ['postgresql'] }
  const front = createTlsServer(settings, socket => {
    protocols.push(socket.alpnProtocol)
    const behind = createConnection(port, '127.0.0.1')
    socket.on('error', () => behind.destroy()).pipe(behind)
    behind.on('error', () => socket.destroy()).pipe(socket)
  })
  const own = await listenOnFreePort(front)
  const query = `sslmode=verify-full&sslnegotiation=direct&sslrootcert=${authority.file}`
  return {
    protocols,
    through: (url: string) => `${url.replace(`127.0.0.1:${port}`, `localhost:${own}`)}?${query}`,
    close: () => front.close(),
  }
}

describe('a server that begins with TLS', () => {
  test('is used with sslnegotiation=direct', async () => {
    const front = await startTlsFront(withoutTls.port)

    const byName = front.through(withoutTls.url)
    for (const url of [byName, byName.replace('localhost', '127.0.0.1')]) {
      expect(await ask(url, 'select 1')).toEqual([1])
    }
    expect(front.protocols).toEqual(['postgresql', 'postgresql'])
    const otherName = `${byName.replace('localhost', '127.0.0.2')}&hostaddr=127.0.0.1`
    await expect(ask(otherName)).rejects.toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
    front.close()
  })

  test('must end a SCRAM exchange with its proof, too', async () => {
    using server = await startScriptedServer({
      authenticate: answer => (answer === undefined ? authentication(10, 'SCRAM-SHA-256\0\0') : undefined),
    })
    const front = await startTlsFront(Number(new URL(server.url).port))

    await expect(ask(front.through(server.url))).rejects.toMatchObject({
      cause: { message: expect.stringContaining('no proof of the server') },
    })
    front.close()
  })
})

describe('a server without TLS', () => {
  test('is used with prefer and allow', async () => {
    for (const mode of ['prefer', 'allow', 'disable']) {
      expect(await ask(`${withoutTls.url}?sslmode=${mode}`)).toEqual(['postgres', false])
    }
  })

  test('is asked once, whatever else it refuses', async () => {
    using server = await startScriptedServer({ authenticate: () => failed('28P01', 'wrong password') })

    await expect(ask(`${server.url}?sslmode=allow`)).rejects.toMatchObject({ code: '28P01' })
    expect(server.connections()).toBe(1)
  })

  test('that refuses a parameter is asked once more, without ours, for each connection', async () => {
    const refusal = failed('08P01', 'unsupported startup parameter: TimeZone')
    using server = await startScriptedServer({ authenticate: () => refusal })

    const driver = openPostgres({ url: `${server.url}?sslmode=disable`, poolSize: 1 })
    for (const count of [2, 4]) {
      const failure = await driver.dedicatedConnection(async () => {}).catch(error => error)
      expect(failure).toMatchObject({ cause: { code: '08P01' } })
      expect(server.connections()).toBe(count)
    }
    await driver.close()
  })

  test('is refused with require, and its connection closed', async () => {
    await expect(ask(`${withoutTls.url}?sslmode=require`)).rejects.toMatchObject({ code: 'TLS_NOT_OFFERED' })

    using server = await startScriptedServer()
    await expect(ask(`${server.url}?sslmode=require`)).rejects.toMatchObject({ code: 'TLS_NOT_OFFERED' })
    await until(() => server.open() === 0)
  })
})

test('what comes without encryption behind the offer of TLS is refused', async () => {
  using server = await startScriptedServer({ tls: Buffer.from('S and more') })

  await expect(ask(`${server.url}?sslmode=require`)).rejects.toMatchObject({ code: 'NOT_POSTGRESQL' })
})

describe('a socket', () => {
  const query = 'select inet_server_addr()'

  test.each([
    [
      'as a parameter',
      () => `postgres://postgres:PASSWORD@/postgres?host=${server.dataDir}&port=${server.port}`,
    ],
    [
      'as the host',
      () => `postgres://postgres:PASSWORD@${encodeURIComponent(server.dataDir)}:${server.port}/postgres`,
    ],
    [
      'with demands on TLS, which a socket does not have',
      () =>
        `postgres://postgres:PASSWORD@/postgres?host=${server.dataDir}&port=${server.port}&sslmode=verify-full`,
    ],
  ])('%s', async (_, url) => {
    expect(await ask(url().replace('PASSWORD', new URL(server.url).password), query)).toEqual([null])
  })

  test('that is not there says so', async () => {
    await expect(ask(`postgres:///d?host=${folder}`)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

test.skipIf(!hasIpv6)('an IPv6 address is reached', async () => {
  expect(await ask(at('encrypted', '', '[::1]'))).toEqual(['encrypted', true])
})

test('user, password and database that are left out come from the environment', async () => {
  const { password } = new URL(server.url)
  Object.assign(process.env, { PGUSER: 'postgres', PGPASSWORD: password, PGDATABASE: 'template1' })
  try {
    const row = await ask(`postgres://localhost:${server.port}`, 'select current_user, current_database()')
    expect(row).toEqual(['postgres', 'template1'])
  } finally {
    for (const name of ['PGUSER', 'PGPASSWORD', 'PGDATABASE']) delete process.env[name]
  }
})

describe('what the session receives', () => {
  test('options, a name and a search path, with ours after them', async () => {
    const query =
      'options=-c%20work_mem%3D5MB%20-c%20statement_timeout%3D7%20-c%20timezone%3DAsia/Tokyo%20-c%20default_transaction_isolation%3Dserializable&application_name=mine&search_path=pg_catalog'
    const names = [
      ...['work_mem', 'statement_timeout', 'TimeZone', 'default_transaction_isolation'],
      ...['application_name', 'search_path'],
    ]
    const settings = names.map(name => `current_setting('${name}')`).join()

    expect(await ask(at('encrypted', query), `select ${settings}`)).toEqual([
      '5MB',
      '1800ms',
      'UTC',
      'read committed',
      'mine',
      'pg_catalog',
    ])
  })

  test('the options of a host that are no options of PostgreSQL', async () => {
    using server = await startScriptedServer()
    const url = `${server.url}?options=endpoint%3Dep-cool-123&application_name=mine`
    await ask(url, 'select 1')

    expect(server.startups[0]).toContain('\0options\0endpoint=ep-cool-123\0')
    expect(server.startups[0]).toContain('\0application_name\0mine\0')
  })
})

describe('a failure to connect has a code of its own:', () => {
  test.each([
    ['a name that does not exist', 'nosuch.invalid', 'ENOTFOUND'],
    ['a host that refuses', '127.0.0.1:1', 'ECONNREFUSED'],
  ])('%s', async (_, host, code) => {
    await expect(ask(`postgres://u:p@${host}/d`)).rejects.toMatchObject({ code })
  })

  test('a server that says nothing', async () => {
    using silent = await startScriptedServer({ tls: Buffer.alloc(0) })

    await expect(ask(silent.url)).rejects.toMatchObject({ code: 'CONNECT_TIMEOUT' })
  })

  test('a server that hangs up', async () => {
    using silent = await startScriptedServer({ tls: Buffer.alloc(0) })
    const asking = ask(`${silent.url}?sslmode=require`)
    asking.catch(() => {})
    await until(() => silent.open() === 1)
    silent[Symbol.dispose]()

    // Reset, if it had not read what was sent to it.
    await expect(asking).rejects.toMatchObject({
      code: expect.stringMatching(/^(CONNECTION_CLOSED|ECONNRESET)$/),
    })
  })

  test('a server that has TLS and does not begin it', async () => {
    using silent = await startScriptedServer({ tls: Buffer.from('S') })

    await expect(ask(`${silent.url}?sslmode=require`)).rejects.toMatchObject({
      code: 'CONNECT_TIMEOUT',
      message: 'TLS was not ready in time',
    })
  })

  test('a name with several addresses that all refuse: that of the last one', async () => {
    const real = { ...dns }
    const found = ['127.0.0.1', '127.0.0.2'].map(address => ({ address, family: 4 }))
    mock.module('node:dns/promises', () => ({ ...real, lookup: async () => found }))
    try {
      await expect(ask('postgres://u:p@several.example:1/d')).rejects.toMatchObject({
        code: 'ECONNREFUSED',
        message: 'connect ECONNREFUSED 127.0.0.2:1',
      })
    } finally {
      mock.module('node:dns/promises', () => real)
    }
  })

  test('an address at which nothing answers', async () => {
    // It accepts no connection, and the system keeps 512 for it.
    const listener = `
      const { port } = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
      await Bun.write(Bun.stdout, port + '\\n')
      Bun.sleepSync(60_000)`
    const child = Bun.spawn([process.execPath, '-e', listener], { stdout: 'pipe' })
    const { value } = await child.stdout.getReader().read()
    const port = Number(new TextDecoder().decode(value))
    const waiting = Array.from({ length: 600 }, () =>
      createConnection(port, '127.0.0.1').on('error', () => {}),
    )
    await until(() => waiting.filter(socket => socket.readyState === 'open').length > 500)

    const openFiles = () => readdirSync('/proc/self/fd').length
    const before = openFiles()
    await expect(ask(`postgres://u:p@127.0.0.1:${port}/d`)).rejects.toMatchObject({
      code: 'CONNECT_TIMEOUT',
      message: 'nothing answers at the address of the server',
    })
    await until(() => openFiles() <= before)
    for (const socket of waiting) socket.destroy()
    child.kill('SIGKILL')
  })

  test('connect_timeout is the time that it may take', async () => {
    using silent = await startScriptedServer({ tls: Buffer.alloc(0) })
    const began = performance.now()
    const driver = openPostgres({ url: `${silent.url}?connect_timeout=3`, poolSize: 1 })
    await expect(driver.dedicatedConnection(async () => {})).rejects.toMatchObject({ code: 'unavailable' })
    const took = performance.now() - began
    await driver.close()

    expect(took).toBeGreaterThan(2900)
  })
})

describe('the log says', () => {
  const start = (url: string) => startExecutable({ DATABASE_URL: url, SECRET_KEY: crypto.randomUUID() })
  const find = (api: Running, msg: string) =>
    api.lines.map(line => JSON.parse(line)).find(line => line.msg === msg)

  test.each([
    ['nosuch.invalid', { code: 'ENOTFOUND', message: 'the name nosuch.invalid does not exist' }],
    ['127.0.0.1:1', { code: 'ECONNREFUSED', message: 'connect ECONNREFUSED 127.0.0.1:1' }],
  ])('why there is no connection to %s', async (host, about) => {
    const api = await start(`postgres://u:geheim@${host}/d`)
    await until(() => find(api, 'waiting for the database') !== undefined)
    await api.stop()

    expect(find(api, 'waiting for the database')).toMatchObject({ level: 'warn', ...about })
    expect(api.lines.join()).not.toContain('geheim')
  })

  test('of an error of the server its class and code: the build keeps the names', async () => {
    const database = await privateDatabase()
    await execute(database.directUrl, `create role crowded login password 'x' connection limit 0`)
    const url = new URL(database.directUrl)
    Object.assign(url, { username: 'crowded', password: 'x' })
    const api = await start(url.href)
    await until(() => find(api, 'waiting for the database') !== undefined)
    await api.stop()
    await execute(database.directUrl, 'drop role crowded')
    await database.drop()

    expect(find(api, 'waiting for the database')).toMatchObject({ error: 'PostgresError', code: '53300' })
  })

  test('why the pool does not grow, while its only connection goes on', async () => {
    const database = await privateDatabase()
    await execute(database.directUrl, `create role alone login password 'x' connection limit 1`)
    await execute(database.directUrl, 'grant pg_read_all_data to alone')
    const url = new URL(database.directUrl)
    Object.assign(url, { username: 'alone', password: 'x' })
    const api = await start(url.href)
    await until(async () => (await api.get('/health/ready')).status === 200)
    const shortage = 'too few connections to the database'
    // The pool tries to open several at once for them.
    const answers = await Promise.all(Array.from({ length: 8 }, () => api.get('/health/ready')))
    await until(() => find(api, shortage) !== undefined)
    await api.stop()
    await execute(database.directUrl, 'drop owned by alone; drop role alone')
    await database.drop()

    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200))
    expect(find(api, shortage)).toMatchObject({ level: 'warn', code: '53300' })
  })

  test.each([
    ['pgbouncer=true', 'pgbouncer'],
    ['pgbouncer=true&channel_binding=require', 'pgbouncer, channel_binding'],
  ])('which parameters of %s are ignored', async (query, parameters) => {
    const api = await start(`postgres://u:p@127.0.0.1:1/d?${query}`)
    await api.stop()

    expect(find(api, 'parameters of DATABASE_URL are ignored')).toMatchObject({ level: 'warn', parameters })
  })
})

test('a password that is not encoded ends the start with exit code 2 and the cure', async () => {
  const { exitCode, stdout, stderr } = await runCommand(['serve'], {
    env: { DATABASE_URL: 'postgres://u:ge/heim@127.0.0.1/d', SECRET_KEY: crypto.randomUUID() },
  })

  expect([exitCode, stdout]).toEqual([2, ''])
  expect(stderr).toMatch(/DATABASE_URL holds a character that must be percent-encoded/)
  expect(stderr).not.toMatch(/ge\/|heim/)
})

describe('several hosts:', () => {
  const both = (query: string) => {
    const [a, b] = [server, withoutTls].map(({ port }) => `127.0.0.1:${port}`)
    return (order: 'ab' | 'ba') =>
      `postgres://reader:x@${order === 'ab' ? `${a},${b}` : `${b},${a}`}/postgres?${query}`
  }
  const port = 'select inet_server_port()'

  beforeAll(async () => {
    for (const { url } of [server, withoutTls]) await execute(url, `create role reader login password 'x'`)
    await execute(server.url, 'alter role reader set default_transaction_read_only = on')
  })

  test('the one that accepts writes is used', async () => {
    for (const query of ['', 'target_session_attrs=read-write', 'target_session_attrs=primary']) {
      expect(await ask(both(query)('ab'), port)).toEqual([withoutTls.port])
    }
  })

  test('the first one is used with target_session_attrs=any', async () => {
    expect(await ask(both('target_session_attrs=any')('ab'), port)).toEqual([server.port])
    expect(await ask(both('target_session_attrs=any')('ba'), port)).toEqual([withoutTls.port])
  })

  test('one that is not there is passed over', async () => {
    const url = `postgres://reader:x@127.0.0.1:1,nosuch.invalid,127.0.0.1:${withoutTls.port}/postgres`

    expect(await ask(url, port)).toEqual([withoutTls.port])
  })

  test('a single one that refuses writes is used, unless read-write is asked for', async () => {
    const url = `postgres://reader:x@127.0.0.1:${server.port}/postgres`

    expect(await ask(url, port)).toEqual([server.port])
    await expect(ask(`${url}?target_session_attrs=read-write`, port)).rejects.toMatchObject({ code: '25006' })
  })
})

/** As the consoles of hosts show them, but for names and passwords; HOST:PORT is what a local server stands in for. */
const handedOut: Record<string, string> = {
  Neon: 'postgresql://neondb_owner:npg_AbC123@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require',
  'Neon, pooled':
    'postgresql://neondb_owner:npg_AbC123@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require',
  RDS: 'postgres://postgres:Pa55w0rd@mydb.c9akciq32.us-east-1.rds.amazonaws.com:5432/postgres?sslmode=verify-full&sslrootcert=/etc/ssl/rds/global-bundle.pem',
  'Cloud SQL': 'postgres://todo:Pa55w0rd@/todo?host=/cloudsql/my-project:europe-west1:my-instance',
  Supabase: 'postgresql://postgres:Pa55w0rd@db.abcdefghijklmnopqrst.supabase.co:5432/postgres',
  'Supabase, pooled':
    'postgresql://postgres.abcdefghijklmnopqrst:Pa55w0rd@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1',
  'Supabase by Vercel':
    'postgres://postgres.abcdefghijklmnopqrst:Pa55w0rd@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?sslmode=require&supa=base-pooler.x',
  Heroku:
    'postgres://u1ab2cd3ef4:p0123456789abcdef@cabc1d2e3f4.cluster-czrs8kj4isg7.us-east-1.rds.amazonaws.com:5432/d1ab2cd3ef4',
  Fly: 'postgres://todo_app:Pa55w0rd@todo-db.flycast:5432/todo_app?sslmode=disable',
  Render: 'postgresql://todo_user:Pa55w0rd@dpg-abc123def456-a.frankfurt-postgres.render.com/todo_db',
}

describe('the address of a host, with a local server in its place:', () => {
  for (const [name, url] of Object.entries(handedOut)) {
    test(name, async () => {
      const standIn = url
        .replace(/@[^/]+\//, `@localhost:${server.port}/`)
        .replace('/etc/ssl/rds/global-bundle.pem', authority.file)
        .replace('/cloudsql/', `${folder}/cloudsql/`)
        .replace('@/todo', `@:${server.port}/todo`)
      const { user, password, database, hosts, encryption } = parseDatabaseUrl(standIn)
      if (name === 'Cloud SQL') {
        mkdirSync(join(folder, 'cloudsql'))
        symlinkSync(server.dataDir, hosts[0]!.name)
      }
      if (user !== 'postgres') {
        await execute(
          server.url,
          `do $$ begin if not exists (select from pg_roles where rolname = '${user}')
           then create role "${user}" login password '${password}'; end if; end $$`,
        )
      } else await execute(server.url, `alter role postgres password '${password}'`)
      try {
        if (database !== 'postgres') await server.createDatabase(database!).catch(alreadyThere)
        const rows = await ask(
          standIn,
          'select current_user, current_database(), ssl from pg_stat_ssl where pid = pg_backend_pid()',
        )
        const isEncrypted = name !== 'Cloud SQL' && encryption.includes('tls')

        expect(rows).toEqual([user, database, isEncrypted])
      } finally {
        if (user === 'postgres') {
          const original = new URL(server.url).password
          await execute(server.url.replace(original, password!), `alter role postgres password '${original}'`)
        }
      }
    })
  }
})

function alreadyThere(error: { code?: string }) {
  if (error.code !== '42P04') throw error
}

test('the name of a file that is empty counts as not given', () => {
  const { tls } = parseDatabaseUrl('postgres://h/d?sslrootcert=&sslcert=&sslkey=')
  expect(tls).toEqual(parseDatabaseUrl('postgres://h/d').tls)
})
