import { afterAll, beforeAll, describe, expect, onTestFinished, setSystemTime, spyOn, test } from 'bun:test'
import { createSocket } from 'node:dgram'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { diagnose } from '../src/cli/doctor/diagnose.ts'
import { doctorCommand } from '../src/cli/doctor/doctor.ts'
import type { Env } from '../src/config/config.ts'
import { ensureCluster } from '../src/db/embedded/cluster-files.ts'
import { AppError } from '../src/lib/errors.ts'
import { type Authority, createAuthority, read } from './support/certificates.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { executablePath, startExecutable } from './support/executable.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { startScriptedServer } from './support/scripted-server.ts'
import { emptyDatabase } from './support/template.ts'

const secret = '58b49a2cb5ab63ce16b08e9c6b9fcee5'
const folder = mkdtempSync(join(tmpdir(), 'todo-api-doctor-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Finding {
  verdict: 'ok' | 'warn' | 'fail'
  check: string
  about: string
  cure?: string
}

async function doctor(env: Env): Promise<{ exitCode: number; findings: Finding[] }> {
  const { exitCode, stdout } = await runCommand(['doctor', '--json'], { env })
  const findings = stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as Finding)
  return { exitCode, findings }
}

/** What is not well. */
async function problems(env: Env): Promise<{ exitCode: number; found: Finding[] }> {
  const { exitCode, findings } = await doctor(env)
  return { exitCode, found: findings.filter(({ verdict }) => verdict !== 'ok') }
}

/** What it has looked at, in order. */
const looksAt = async (env: Env) => (await doctor(env)).findings.map(({ check }) => check)

const failure = (check: string, cure: RegExp): { exitCode: number; found: Finding[] } => ({
  exitCode: 1,
  found: [{ verdict: 'fail', check, about: expect.any(String), cure: expect.stringMatching(cure) }],
})

// As root, other users and file systems can be had.
const isRoot = process.getuid?.() === 0 && Bun.spawnSync(['unshare', '--mount', 'true']).exitCode === 0
if (!isRoot) process.stderr.write('\nNOT RUN: tests that mount a file system need root.\n')

test.each([
  ['28P01', 'wrong', /correct the password .*@ is written %40, \/ %2F, : %3A, % %25\)/],
  ['53300', 'sorry, too many clients already', /DATABASE_POOL_SIZE/],
  ['57P03', 'the database system is starting up', /try again/],
  ['57P01', 'terminating connection', /try again/],
  ['25006', 'cannot execute INSERT in a read-only transaction', /name the primary/],
  ['CERT_HAS_EXPIRED', 'certificate has expired', /renew the certificate/],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'wrong version number', /ssl_min_protocol_version/],
  ['EACCES', 'connect EACCES /run/.s.PGSQL.5432', /into the folder of the socket/],
  ['ETIMEDOUT', 'connect ETIMEDOUT', /firewall/],
  ['EHOSTUNREACH', 'connect EHOSTUNREACH', /firewall/],
  ['ENETUNREACH', 'connect ENETUNREACH', /firewall/],
  ['CONNECT_TIMEOUT', 'write CONNECT_TIMEOUT', /firewall/],
  ['EAI_AGAIN', 'getaddrinfo EAI_AGAIN', /name server/],
  ['DNS_ETIMEOUT', 'getaddrinfo DNS_ETIMEOUT', /name server/],
  ['ESERVFAIL', 'queryA ESERVFAIL', /name server/],
  ['ETIMEOUT', 'queryA ETIMEOUT', /name server/],
  ['XX000', 'something else', undefined],
])('the failure %s (%s) has its cure', (code, message, cure) => {
  const cause = Object.assign(new Error(message), { code })
  for (const error of [cause, new AppError('unavailable', { cause })]) {
    expect(diagnose(error)).toEqual({ about: message, cure: cure && expect.stringMatching(cure) })
  }
})

describe('doctor names the cure when PostgreSQL', () => {
  let server: PostgresServer
  let authority: Authority
  beforeAll(async () => {
    authority = createAuthority('own')
    const { cert, key } = authority.issue('server', 'DNS:localhost')
    server = await startPostgresServer({
      parameters: ['ssl=on', 'ssl_ca_file=ca.crt'],
      files: {
        'server.crt': read(cert),
        'server.key': read(key),
        'ca.crt': read(authority.file),
        'pg_hba.conf': `
          hostssl all certified all scram-sha-256 clientcert=verify-ca
          hostssl all encrypted all scram-sha-256
          host all encrypted,certified all reject
          host all stranger all reject
          host all all all scram-sha-256`,
      },
    })
    for (const role of ['certified', 'encrypted', 'stranger', 'reader']) {
      await execute(server.url, `create role ${role} login password 'geheim'`)
    }
    await execute(server.url, 'revoke connect on database template1 from public')
  }, 60_000)
  afterAll(async () => {
    await server?.close()
    rmSync(authority.folder, { recursive: true })
  })

  const at = (role: string, query = '', host = `localhost:${server.port}`, database = 'postgres') =>
    `postgres://${role}:geheim@${host}/${database}?${query}`

  test.each<[string, () => string, RegExp]>([
    ['refuses the password', () => at('encrypted').replace('geheim', 'falsch'), /correct the password/],
    [
      'has a certificate of an unknown authority',
      () => at('encrypted', 'sslmode=verify-full'),
      /sslrootcert=/,
    ],
    [
      'has a certificate for another name',
      () => at('encrypted', `sslmode=verify-full&sslrootcert=${authority.file}`, `127.0.0.1:${server.port}`),
      /name of the certificate/,
    ],
    ['demands TLS', () => at('encrypted', 'sslmode=disable'), /sslmode=require/],
    ['demands a certificate', () => at('certified', 'sslmode=require'), /sslcert and sslkey/],
    ['has no rule for the user', () => at('stranger', 'sslmode=require'), /pg_hba\.conf.*sslmode.*sslcert/],
    ['has no such database', () => at('encrypted', '', undefined, 'nosuch'), /create database/],
    ['lets the role not in', () => at('encrypted', '', undefined, 'template1'), /owner/],
    ['is at a name that does not exist', () => at('encrypted', '', 'nosuch.invalid'), /correct the host/],
    ['is not there', () => at('encrypted', '', '127.0.0.1:1'), /start PostgreSQL/],
    ['has no socket there', () => `postgres:///postgres?host=${folder}`, /folder of the socket/],
  ])('%s', async (_, url, cure) => {
    const { exitCode, found } = await problems({ DATABASE_URL: url(), SECRET_KEY: secret })

    expect({ exitCode, found }).toEqual(failure('database', cure))
    expect(JSON.stringify(found)).not.toMatch(/geheim|falsch/)
  })

  test.each([
    [-1, 'ok'],
    [1, 'ok'],
    [3, 'warn'],
    [-29, 'warn'],
    [31, 'fail'],
  ])('has a clock that is %d s apart from that of the machine: %s', async (seconds, verdict) => {
    let printed = ''
    const output = spyOn(process.stdout, 'write').mockImplementation(((text: string, done: () => void) => {
      printed += text
      done()
    }) as typeof process.stdout.write)
    const env = { DATABASE_URL: at('reader'), SECRET_KEY: secret }
    Object.assign(process.env, env)
    setSystemTime(new Date(Date.now() + seconds * 1000))
    const isWell = await doctorCommand('', { json: true }).finally(() => {
      setSystemTime()
      output.mockRestore()
      for (const name of Object.keys(env)) delete process.env[name]
    })

    const findings = printed
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Finding)
    expect(findings.find(({ check }) => check === 'clock')?.verdict).toBe(verdict as Finding['verdict'])
    expect(isWell).toBe(!findings.some(found => found.verdict === 'fail'))
  })

  test.each([
    ['database postgres', 50],
    ['role current_user', 40],
    // As it is: the server's own limit.
    ['database postgres', -1],
  ])('has few connections for the pools of a replica (%s: %d)', async (limited, limit) => {
    await execute(server.url, `alter ${limited} connection limit ${limit}`)
    onTestFinished(() => execute(server.url, `alter ${limited} connection limit -1`))
    const [row] = await execute(server.url, 'show max_connections')
    const most = Math.floor(0.8 * (limit < 0 ? Number(row!.max_connections) : limit))
    const judge = async (size: number) => {
      const env = { DATABASE_URL: server.url, SECRET_KEY: secret, DATABASE_POOL_SIZE: String(size) }
      const { found } = await problems(env)
      return found.filter(({ check }) => check === 'connections').map(({ verdict, cure }) => [verdict, cure])
    }

    expect(await judge(most)).toEqual([])
    expect(await judge(most + 1)).toEqual([['warn', 'lower DATABASE_POOL_SIZE']])
  })

  test('has no TLS', async () => {
    using plain = await startScriptedServer()
    const env = { DATABASE_URL: `${plain.url}?sslmode=require`, SECRET_KEY: secret }

    expect(await problems(env)).toEqual(failure('database', /turn on TLS/))
  })

  test('says nothing', async () => {
    using silent = await startScriptedServer({ tls: Buffer.alloc(0) })

    expect(await problems({ DATABASE_URL: silent.url, SECRET_KEY: secret })).toEqual(
      failure('database', /firewall/),
    )
  })

  test.skipIf(!isRoot)(
    'is at a name for which the name server has no answer',
    async () => {
      const nameServer = `127.${[0, 0, 0].map(() => Math.ceil(Math.random() * 250)).join('.')}`
      const silent = createSocket('udp4')
      await new Promise<void>(resolve => silent.bind(53, nameServer, resolve))
      const file = `nameserver ${nameServer}\noptions timeout:1 attempts:3\n`
      const stdout = await withFile('/etc/resolv.conf', file, at('encrypted', '', 'db.example.com'))
      silent.close()

      expect(stdout).toContain('db.example.com was not looked up in time; the name server does not answer')
    },
    30_000,
  )

  test.skipIf(!isRoot)(
    'has two addresses, and nothing at the first one: there is nothing to cure',
    async () => {
      // IPv6 comes first; the server has none.
      const hosts = ['::1', '127.0.0.1'].map(address => `${address} db.example.com\n`)
      const url = at('encrypted', '', `db.example.com:${server.port}`)
      const stdout = await withFile('/etc/hosts', hosts.join(''), url)

      expect(stdout).toMatch(/^ok {4}database .*PostgreSQL/m)
    },
  )

  /** The output of doctor with another file in place of one of the system, by a mount that only it sees. */
  async function withFile(path: string, content: string, url: string): Promise<string> {
    const file = join(folder, basename(path))
    writeFileSync(file, content)
    const script = 'mount --bind "$0" "$1" && exec "$2" doctor'
    const asked = Bun.spawn(['unshare', '--mount', 'sh', '-c', script, file, path, await executablePath()], {
      env: { PATH: process.env.PATH, DATABASE_URL: url, SECRET_KEY: secret },
      stdout: 'pipe',
    })
    return new Response(asked.stdout).text()
  }

  test('is another program', async () => {
    using other = await startScriptedServer({ tls: Buffer.from('HTTP/1.1 400 Bad Request\r\n') })

    expect(await problems({ DATABASE_URL: other.url, SECRET_KEY: secret })).toEqual(
      failure('database', /correct the port/),
    )
  })
})

describe('doctor names the cure when the database', () => {
  let place: Place
  const url = () => place.env.DATABASE_URL!
  const name = () => new URL(url()).pathname.slice(1)
  beforeAll(async () => {
    // A pooling proxy would go on with sessions from before the changes.
    place = await newPlace('postgres', { direct: true })
    await execute(url(), 'create schema pretended')
  })
  afterAll(() => place.remove())

  /** Sessions take the function in place of PostgreSQL's own meanwhile. */
  async function pretend<T>(definition: string, work: () => Promise<T>): Promise<T> {
    await execute(url(), `create function pretended.${definition}`)
    await execute(url(), `alter database ${name()} set search_path = pretended, pg_catalog, public`)
    try {
      return await work()
    } finally {
      await execute(
        url(),
        `alter database ${name()} reset search_path; drop schema pretended cascade; create schema pretended`,
      )
    }
  }

  test.each([
    ['10 seconds', 'warn', 0],
    ['1 hour', 'fail', 1],
  ] as const)('has another clock: %s', async (difference, verdict, exitCode) => {
    const found = await pretend(
      `clock_timestamp() returns timestamptz language sql
       as $$ select pg_catalog.clock_timestamp() + interval '${difference}' $$`,
      () => problems(place.env),
    )

    expect(found).toEqual({
      exitCode,
      found: [{ verdict, check: 'clock', about: expect.any(String), cure: expect.stringContaining('NTP') }],
    })
  })

  test.each([
    ['140009', [{ verdict: 'fail', cure: expect.stringContaining('upgrade it') }]],
    ['150000', []],
    ['189999', []],
    ['190000', [{ verdict: 'warn', cure: expect.stringContaining('upgrade todo-api') }]],
  ])('is of version %s, where 15 to 18 are tested', async (number, expected) => {
    const { found } = await pretend(
      `current_setting(name text) returns text language sql as $$
         select case name when 'server_version_num' then '${number}' else pg_catalog.current_setting(name) end $$`,
      () => problems(place.env),
    )

    expect(found).toEqual(expected.map(finding => expect.objectContaining({ check: 'database', ...finding })))
  })

  test.each([
    ['another encoding', 'server_encoding', 'LATIN1', 'encoding', 'fail', /encoding 'UTF8'/],
    ['another time zone', 'TimeZone', 'Asia/Tokyo', 'time zone', 'fail', /set timezone = 'UTC'/],
    [
      'read-only sessions',
      'transaction_read_only',
      'on',
      'writing',
      'fail',
      /reset default_transaction_read/,
    ],
    [
      'more isolation',
      'default_transaction_isolation',
      'serializable',
      'isolation',
      'fail',
      /= 'read committed'/,
    ],
    [
      'no limit of time',
      'statement_timeout',
      '0',
      'limits',
      'warn',
      /^alter role … set statement_timeout = '1800'$/,
    ],
    ['compiled plans', 'jit', 'on', 'limits', 'warn', /^alter role … set jit = 'off'$/],
  ] as const)('has %s', async (_, setting, value, check, verdict, cure) => {
    const { exitCode, found } = await pretend(
      `current_setting(name text) returns text language sql as $$
         select case name when '${setting}' then '${value}' else pg_catalog.current_setting(name) end $$`,
      () => problems(place.env),
    )

    expect(found).toEqual([{ verdict, check, about: expect.any(String), cure: expect.stringMatching(cure) }])
    expect(exitCode).toBe(verdict === 'fail' ? 1 : 0)
  })

  test('is a standby', async () => {
    const { exitCode, found } = await pretend(
      'pg_is_in_recovery() returns boolean language sql as $$ select true $$',
      () => problems(place.env),
    )

    expect(found).toEqual([
      {
        verdict: 'fail',
        check: 'writing',
        about: expect.any(String),
        cure: 'name the primary in DATABASE_URL',
      },
    ])
    expect(exitCode).toBe(1)
  })

  test('is empty, and the role may not make tables, or has no schema for them', async () => {
    const empty = await emptyDatabase()
    const role = `guest_${name()}`
    await execute(empty.directUrl, `create role ${role} login password 'x'`)
    const [guest, elsewhere] = [new URL(empty.directUrl), new URL(empty.directUrl)]
    Object.assign(guest, { username: role, password: 'x' })
    elsewhere.searchParams.set('search_path', 'nosuch')
    const all = [guest, elsewhere].map(({ href }) => problems({ ...place.env, DATABASE_URL: href }))
    const results = await Promise.all(all)
    await empty.drop()
    await execute(place.env.DATABASE_URL!, `drop role ${role}`)

    for (const { exitCode, found } of results)
      expect([exitCode, found]).toEqual([
        1,
        [
          expect.objectContaining({ verdict: 'warn', check: 'migrations' }),
          expect.objectContaining({
            verdict: 'fail',
            check: 'writing',
            cure: expect.stringContaining('make it the owner'),
          }),
        ],
      ])
  })

  test('has migrations of a newer todo-api', async () => {
    const migrations = 'drizzle.__drizzle_migrations'
    await execute(url(), `insert into ${migrations} (hash, created_at) values ('later', 99999999999999)`)
    const { exitCode, findings } = await doctor(place.env)
    await execute(url(), `delete from ${migrations} where hash = 'later'`)

    expect([exitCode, findings.filter(({ check }) => check === 'migrations')]).toEqual([
      0,
      [{ verdict: 'warn', check: 'migrations', about: '1 from a newer todo-api', cure: 'upgrade this one' }],
    ])
  })

  test('lacks migrations', async () => {
    const migrations = 'drizzle.__drizzle_migrations'
    const [last] = await execute(
      url(),
      `delete from ${migrations} where id = (select max(id) from ${migrations}) returning *`,
    )
    const { exitCode, found } = await problems(place.env)
    await execute(
      url(),
      `insert into ${migrations} values (${last!.id}, '${last!.hash}', ${last!.created_at})`,
    )

    expect([exitCode, found]).toEqual([
      0,
      [
        {
          verdict: 'warn',
          check: 'migrations',
          about: '1 pending',
          cure: expect.stringContaining('todo-api migrate'),
        },
      ],
    ])
  })

  test.each([
    ['all of its tables', ''],
    // A trigger of `sessions` writes into `session_ends`.
    [
      'insertions',
      'grant insert on session_ends to ROLE; grant select, update, delete on all tables in schema public to ROLE',
    ],
    ['deletions', 'grant select, update, insert on all tables in schema public to ROLE'],
    ...['select on tickets', 'insert on tasks', 'update on sessions', 'delete on lists'].map(right => [
      right,
      `grant all on all tables in schema public to ROLE; revoke ${right} from ROLE`,
    ]),
  ])('refuses the role %s', async (_, rights) => {
    const role = `reader_${name()}`
    await execute(
      url(),
      `create role ${role} login password 'x'; grant usage on schema drizzle to ${role};
       grant select on all tables in schema drizzle to ${role}; ${rights.replaceAll('ROLE', role)}`,
    )
    const own = new URL(url())
    Object.assign(own, { username: role, password: 'x' })
    const found = await problems({ ...place.env, DATABASE_URL: own.href })
    await execute(url(), `drop owned by ${role}; drop role ${role}`)

    expect(found).toEqual(failure('writing', /grant the role/))
    const [, revoked] = rights!.match(/revoke (.*) from/) ?? []
    if (revoked) expect(found.found[0]!.about).toBe(`not allowed: ${revoked}`)
  })
})

describe('doctor names the cure when the data folder', () => {
  test.skipIf(!isRoot)('is on a disk that is read-only', async () => {
    await withDisk('size=1m,ro', async disk => {
      for (const DATA_DIR of [disk, join(disk, 'not', 'yet')]) {
        expect(await problems({ DATA_DIR })).toEqual(failure('data folder', /read-only: mount/))
        expect(await runCommand(['migrate'], { env: { DATA_DIR } })).toEqual({
          exitCode: 1,
          stdout: '',
          stderr: expect.stringMatching(
            /cannot be used: (the file system is read-only|files cannot be made in it)\n$/,
          ),
        })
      }
    })
  })

  test.skipIf(!isRoot)('is on a disk that is full', async () => {
    await withDisk('size=1m,mode=0700', async disk => {
      writeFileSync(join(disk, 'ballast'), Buffer.alloc(1 << 20))

      expect(await problems({ DATA_DIR: disk })).toEqual(failure('data folder', /make room/))
      expect(await looksAt({ DATA_DIR: disk })).toEqual(['settings', 'data folder'])
    })
    await withDisk('nr_inodes=1', async disk => {
      expect(await problems({ DATA_DIR: disk })).toEqual(
        failure('data folder', /the disk is full: make room/),
      )
    })
    const verdicts: unknown[] = []
    for (const size of [63, 65, 511, 513]) {
      await withDisk(`size=${size}m,mode=0700`, async disk => {
        const { found } = await problems({ DATA_DIR: disk })
        verdicts.push(found.flatMap(({ verdict, check }) => [verdict, check]))
      })
    }
    expect(verdicts).toEqual([['fail', 'data folder'], ['warn', 'data folder'], ['warn', 'data folder'], []])
  })

  test.skipIf(!isRoot).each([
    ['belongs to another user', '', 0o700],
    ['holds a database that another user may only read', '/cluster', 0o755],
    ['holds a lock that another user may only read', '/lock', 0o644],
    ['holds a secret that another user may only write', '/secret_key', 0o622],
  ])('%s', async (what, inside, mode) => {
    const dataDir = join(folder, what)
    mkdirSync(join(dataDir, 'cluster'), { recursive: true })
    for (const name of ['lock', 'secret_key']) writeFileSync(join(dataDir, name), '')
    for (const path of ['', '/cluster', '/lock', '/secret_key']) {
      chmodSync(dataDir + path, inside === path ? mode : 0o777)
    }

    const { exitCode, stdout } = await asAnotherUser(dataDir)

    expect(exitCode).toBe(1)
    expect(stdout).toContain(
      `fail  data folder  ${dataDir}${inside} cannot be written to (EACCES); it belongs to user 0, and this is user 54321: chown -R 54321 ${dataDir}`,
    )
  })

  test.skipIf(!isRoot)('belongs to the service’s user, and doctor is run as root', async () => {
    const dataDir = join(folder, 'of the service')
    mkdirSync(dataDir, { mode: 0o700 })
    Bun.spawnSync(['chown', '54321', dataDir])

    expect(await problems({ DATA_DIR: dataDir })).toEqual({
      exitCode: 0,
      found: [
        {
          verdict: 'warn',
          check: 'data folder',
          about: expect.stringContaining('belongs to user 54321'),
          cure: expect.stringContaining('as its owner'),
        },
      ],
    })
    // Its owner reads nothing of root.
    const { exitCode, stdout } = await asAnotherUser(dataDir)
    expect([exitCode, stdout]).toEqual([0, expect.not.stringContaining('warn')])
    expect(readdirSync(dataDir)).toEqual([])
  })

  test.skipIf(!isRoot)(
    'is of another user, empty or with a database: root leaves it alone, and what root made there is named',
    async () => {
      const dataDir = join(folder, 'of another user')
      const cluster = join(dataDir, 'cluster')
      const refusal = /belongs to user 54321, and this is root; .*: setpriv --reuid 54321 --regid 54322 /
      const isRefused = async () => {
        for (const args of [['migrate'], ['restore', '--force', 'no file']]) {
          const { exitCode, stderr } = await runCommand(args, { env: { DATA_DIR: dataDir } })
          expect([exitCode, stderr]).toEqual([1, expect.stringMatching(refusal)])
        }
      }
      mkdirSync(dataDir, { mode: 0o700 })
      chownSync(dataDir, 54_321, 54_322)
      await isRefused()
      expect(readdirSync(dataDir)).toEqual([])

      await ensureCluster(cluster)
      Bun.spawnSync(['chown', '-R', '54321:54322', dataDir])
      const ofRoot = () =>
        readdirSync(dataDir, { recursive: true }).filter(
          name => statSync(join(dataDir, String(name))).uid === 0,
        )

      const { exitCode, found } = await problems({ DATA_DIR: dataDir })
      expect([exitCode, found]).toMatchObject([
        1,
        [
          { verdict: 'warn', check: 'data folder' },
          { verdict: 'fail', check: 'database', about: expect.stringMatching(refusal) },
        ],
      ])
      await isRefused()
      expect(ofRoot()).toEqual([])

      for (const made of ['pg_logical/replorigin_checkpoint', 'PG_VERSION']) {
        writeFileSync(join(cluster, made), '18\n', { mode: 0o600 })
        chownSync(join(cluster, made), 0, 0)
        const { exitCode, stdout } = await asAnotherUser(dataDir)
        expect([exitCode, stdout]).toEqual([
          1,
          expect.stringMatching(new RegExp(`fail +database .*${made}.*; chown -R 54321 ${dataDir}\\n`)),
        ])
      }
    },
  )

  test('is a file', async () => {
    const file = join(folder, 'file')
    writeFileSync(file, '')

    expect(await problems({ DATA_DIR: file })).toEqual(failure('data folder', /a file is in its place/))
    expect(await looksAt({ DATA_DIR: file })).toEqual(['settings', 'data folder'])
    // A server is another place: it is looked at all the same.
    const DATABASE_URL = 'postgres://u@127.0.0.1:1/d'
    expect(await looksAt({ DATA_DIR: file, DATABASE_URL })).toEqual(['settings', 'data folder', 'database'])
  })

  test('holds the database of another PostgreSQL', async () => {
    const dataDir = join(folder, 'other version')
    const api = await startExecutable({ DATA_DIR: dataDir })
    await api.stop()
    writeFileSync(join(dataDir, 'cluster', 'PG_VERSION'), '17\n')

    expect(await problems({ DATA_DIR: dataDir })).toEqual(
      failure('database', /the version of todo-api that made it/),
    )
  }, 30_000)

  test('has a secret that is damaged', async () => {
    const dataDir = join(folder, 'damaged secret')
    mkdirSync(dataDir, { mode: 0o700 })
    writeFileSync(join(dataDir, 'secret_key'), 'half', { mode: 0o600 })

    expect(await problems({ DATA_DIR: dataDir })).toEqual(failure('secret', /put the old file back/))
    const SECRET_KEY = crypto.randomUUID() + crypto.randomUUID()
    expect((await problems({ DATA_DIR: dataDir, SECRET_KEY })).found).toEqual([])
  })

  /** What doctor says to the user 54321. */
  async function asAnotherUser(dataDir: string) {
    const program = join(folder, 'todo-api')
    copyFileSync(await executablePath(), program)
    for (const path of [folder, program]) chmodSync(path, 0o755)
    const { exitCode, stdout } = Bun.spawnSync([program, 'doctor'], {
      cwd: '/',
      env: { PATH: process.env.PATH, DATA_DIR: dataDir },
      uid: 54_321,
      gid: 54_321,
    })
    return { exitCode, stdout: String(stdout) }
  }

  async function withDisk(options: string, work: (disk: string) => Promise<void>) {
    const disk = mkdtempSync(join(folder, 'disk-'))
    const run = (...command: string[]) => {
      const { exitCode, stderr } = Bun.spawnSync(command)
      if (exitCode !== 0) throw new Error(`${command[0]}: ${stderr}`)
    }
    run('mount', '-t', 'tmpfs', '-o', options, 'todo-api-test', disk)
    try {
      await work(disk)
    } finally {
      run('umount', disk)
    }
  }
})

describe('doctor at a terminal', () => {
  async function atTerminal(env: Env) {
    const shown: Buffer[] = []
    const child = Bun.spawn([await executablePath(), 'doctor'], {
      cwd: folder,
      env: {
        PATH: process.env.PATH,
        TERM: 'xterm-256color',
        DATA_DIR: join(folder, 'new'),
        PORT: 'nonsense',
        ...env,
      },
      terminal: { cols: 200, data: (_: unknown, bytes: Uint8Array) => void shown.push(Buffer.from(bytes)) },
    })
    await child.exited
    return Buffer.concat(shown).toString()
  }

  test('shows marks with colours, and what to do in a line of its own', async () => {
    const shown = await atTerminal({
      PORT: '0',
      DATABASE_URL: 'postgres://u:geheim@127.0.0.1:1/d',
      SECRET_KEY: secret,
      WORKERS: '64',
    })

    expect(shown).toContain('\x1b[32m✓\x1b[0m settings')
    expect(shown).toContain('\x1b[33m!\x1b[0m workers')
    expect(shown).toContain('\x1b[31m✗\x1b[0m database')
    expect(shown).toMatch(/ECONNREFUSED.*\r?\n +→ start PostgreSQL/)
  })

  test('shows no colours with NO_COLOR', async () => {
    const shown = await atTerminal({ NO_COLOR: '1' })

    expect(shown).toContain('✗ settings')
    expect(shown).not.toContain('\x1b[')
  })
})
