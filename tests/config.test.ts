import { afterAll, describe, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConfigError, type Env, parseConfig, readSettings } from '../src/config/config.ts'
import { outcomeOf } from './support/outcome.ts'

const folder = mkdtempSync(join(tmpdir(), 'todo-api-config-'))
afterAll(() => rmSync(folder, { recursive: true }))

const secret = '58b49a2cb5ab63ce16b08e9c6b9fcee5'
const url = 'postgres://user:geheim@db.example.com:5432/todo'

/** The mistakes that these settings hold. */
function mistakes(env: Env): string[] {
  try {
    parseConfig(env)
    return []
  } catch (error) {
    return (error as ConfigError).mistakes
  }
}

function fileWith(content: string): string {
  const path = join(folder, crypto.randomUUID())
  writeFileSync(path, content)
  return path
}

describe('BACKUP_EVERY', () => {
  test.each([
    ['1m', 60],
    ['6h', 21_600],
    ['14d', 1_209_600],
  ])('%s is %d seconds', (BACKUP_EVERY, everySeconds) => {
    expect(parseConfig({ BACKUP_EVERY, DATA_DIR: '/x' }).backups).toEqual({
      everySeconds,
      keep: 7,
      dir: '/x/backups',
    })
  })

  test.each(['6', '6 h', '1.5h', '59s', '15d', '1w', '0m', '-1h', '99999999999h'])(
    '%s is refused',
    BACKUP_EVERY => {
      expect(mistakes({ BACKUP_EVERY })).toEqual([expect.stringContaining('must look like 30m, 6h or 1d')])
    },
  )

  test('is refused with DATABASE_URL, which it would not back up', () => {
    expect(mistakes({ BACKUP_EVERY: '6h', DATABASE_URL: url })).toEqual([expect.stringContaining('pg_dump')])
  })

  test('without it there are none, whatever the others say', () => {
    expect(parseConfig({ BACKUP_KEEP: '3', BACKUP_DIR: '/x' }).backups).toBeUndefined()
    expect(mistakes({ BACKUP_KEEP: '0' })).toEqual([expect.stringContaining('BACKUP_KEEP')])
  })
})

test('without any setting everything has its documented default', () => {
  expect(parseConfig({})).toMatchObject({
    environment: 'development',
    host: '127.0.0.1',
    port: 8000,
    database: { kind: 'embedded', dataDir: './data' },
    dataDir: './data',
    secretKey: undefined,
    algorithm: 'HS256',
    accessTokenLifetimeSeconds: 1440 * 60,
    frontendUrls: ['http://localhost:3000'],
    bcryptCost: 12,
    logLevel: 'info',
    trustedProxies: [],
  })
  expect(parseConfig({ DATABASE_URL: url }).database).toEqual({
    kind: 'postgres',
    url,
    poolSize: 10,
    prepare: true,
  })
})

test.each([
  ['PORT', 0, 65_535],
  ['METRICS_PORT', 0, 65_535],
  ['WORKERS', 1, 64],
  ['DATABASE_POOL_SIZE', 1, 1000],
  ['BCRYPT_COST', 12, 16],
  ['SHUTDOWN_DELAY_SECONDS', 0, 60],
  ['ACCESS_TOKEN_EXPIRE_MINUTES', 1, 525_600],
  ['LOGIN_LIMIT', 0, 1_000_000],
  ['LOGIN_FAILURE_LIMIT', 0, 1_000_000],
  ['REGISTER_LIMIT', 0, 1_000_000],
  ['STREAMS_MAX', 0, 1_000_000],
  ['BACKUP_KEEP', 1, 10_000],
])('%s may be from %d to %d', (name, least, most) => {
  const areRefused = [least - 1, least, most, most + 1].map(
    value => mistakes({ DATABASE_URL: url, SECRET_KEY: secret, [name]: String(value) }).length > 0,
  )

  expect(areRefused).toEqual([true, false, false, true])
})

test('what is not set has these limits', () => {
  const { throttle, streamsMax, hashing, shutdownDelaySeconds, mcp, registration } = parseConfig({})
  expect({ throttle, streamsMax, shutdownDelaySeconds, mcp, registration }).toEqual({
    throttle: { loginsPerMinute: 120, failuresPerAccount: 10, registrationsPerHour: 200 },
    streamsMax: 10_000,
    shutdownDelaySeconds: 0,
    mcp: true,
    registration: 'open',
  })
  expect(hashing.waiting).toBe(50 * hashing.atOnce)
})

test('passwords are hashed by all cores but one, which the workers share', () => {
  const source = JSON.stringify(join(import.meta.dir, '../src/config/config.ts'))
  const script = `
    require('node:os').availableParallelism = () => 9
    const { parseConfig } = await import(${source})
    const env = { DATABASE_URL: 'postgres://h' }
    console.log(...['1', '2', '64'].map(WORKERS => parseConfig({ ...env, WORKERS }).hashing.atOnce))`
  const { stdout } = Bun.spawnSync([process.execPath, '-e', script])

  expect(String(stdout)).toBe('8 4 1\n')
})

test('secrets are long and hold different characters', () => {
  const isRefused = (env: Env) => mistakes(env).length > 0
  const letters = (count: number) => 'zq7vkwx9'.slice(0, count)
  const mixed = (count: number) =>
    [
      ...letters(count),
      ...Array.from({ length: 32 - count }, (_, i) => letters(count)[(i * i + i) % count]!),
    ].join('')

  expect([15, 16].map(length => isRefused({ METRICS_TOKEN: 'x'.repeat(length) }))).toEqual([true, false])
  expect([31, 32].map(length => isRefused({ SECRET_KEY: secret.slice(0, length) }))).toEqual([true, false])
  expect([7, 8].map(count => isRefused({ SECRET_KEY: mixed(count) }))).toEqual([true, false])
})

test.each([
  'secret',
  'change',
  'example',
  'password',
  'replace',
  'placeholder',
  'default',
  'insecure',
  'openssl',
  '12345678',
  'abcdefgh',
])('a secret that contains %p is guessable', word => {
  const rest = secret.slice(word.length)
  expect(mistakes({ SECRET_KEY: rest + word.toUpperCase() })).toEqual([
    expect.stringContaining('a placeholder'),
  ])
})

test('these settings are secrets, whatever sets them', () => {
  const { settings } = readSettings({
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318',
    OTEL_EXPORTER_OTLP_HEADERS: 'api-key=geheim',
    OTEL_EXPORTER_OTLP_TRACES_HEADERS: 'api-key=geheim',
    OTEL_SERVICE_NAME: 'todo',
  })
  const secrets = [...settings].filter(([, { isSecret }]) => isSecret).map(([name]) => name)

  expect(secrets.sort()).toEqual([
    'DATABASE_URL',
    'FIRST_USER_PASSWORD',
    'METRICS_TOKEN',
    'OTEL_EXPORTER_OTLP_HEADERS',
    'OTEL_EXPORTER_OTLP_TRACES_HEADERS',
    'SECRET_KEY',
  ])
  expect(settings.has('OTEL_SERVICE_NAME')).toBe(true)
})

test('an empty value, and one of nothing but white space, count as not set', () => {
  const names = [
    'DATABASE_URL',
    'SECRET_KEY',
    'SECRET_KEY_FILE',
    'PORT',
    'HOST',
    'ALGORITHM',
    'FRONTEND_URL',
    'LOG_LEVEL',
    'BCRYPT_COST',
    'ENVIRONMENT',
    'DATA_DIR',
  ]
  for (const nothing of ['', ' ', '\t\n']) {
    expect(parseConfig(Object.fromEntries(names.map(name => [name, nothing])))).toEqual(parseConfig({}))
  }
})

test.each([
  [{ DATABSE_URL: url }, ['DATABSE_URL', 'DATABASE_URL']],
  [{ DATABASE_URL_FILES: '/x' }, ['DATABASE_URL_FILES', 'DATABASE_URL_FILE']],
  [{ database_url: url }, ['database_url', 'DATABASE_URL']],
  [{ METRICS_TOKENS: '', LOGLEVEL: 'warn' }, ['METRICS_TOKENS', 'METRICS_TOKEN', 'LOGLEVEL', 'LOG_LEVEL']],
  // What other programs have, and what is nearly a setting that is set.
  [{ PORTS: '1', HOSTS: 'x', PATH: '/bin', DATABASE: 'x', SECRET: 'x', POSTGRES_URL: url }, []],
  [{ DATABASE_URI: url, DATABASE_URL: url }, []],
  [{ DATABASE_URI: url, DATABASE_URL_FILE: fileWith(url) }, []],
])('a name that is nearly a setting is noticed, unless that is set: %j', (env: Env, found) => {
  expect(parseConfig(env).misspelled.flatMap(({ name, nearest }) => [name, nearest])).toEqual(found)
})

test('every setting can be set', () => {
  const config = parseConfig({
    ENVIRONMENT: 'production',
    HOST: '0.0.0.0',
    PORT: '80',
    DATABASE_URL: url,
    DATABASE_POOL_SIZE: '25',
    DATABASE_PREPARE: 'false',
    DATA_DIR: '/var/lib/todo',
    SECRET_KEY: secret,
    ALGORITHM: 'HS512',
    ACCESS_TOKEN_EXPIRE_MINUTES: '30',
    FRONTEND_URL: 'https://app.example.com/, http://localhost:5173',
    BCRYPT_COST: '13',
    LOG_LEVEL: 'debug',
    TRUSTED_PROXIES: '10.0.0.0/8, ::1',
  })

  expect(config).toMatchObject({
    environment: 'production',
    host: '0.0.0.0',
    port: 80,
    database: { kind: 'postgres', url, poolSize: 25, prepare: false },
    dataDir: '/var/lib/todo',
    secretKey: secret,
    algorithm: 'HS512',
    accessTokenLifetimeSeconds: 1800,
    frontendUrls: ['https://app.example.com', 'http://localhost:5173'],
    bcryptCost: 13,
    logLevel: 'debug',
  })
  expect(config.trustedProxies).toHaveLength(2)
})

test.each([
  ['HTTPS://App.Example', 'https://app.example'],
  ['https://a.example:443, http://a.example:80/', 'https://a.example,http://a.example'],
  ['https://münchen.example', 'https://xn--mnchen-3ya.example'],
  ['Tauri://localhost', 'tauri://localhost'],
  ['chrome-extension://aBc,ionic://localhost:8100/', 'chrome-extension://aBc,ionic://localhost:8100'],
])('FRONTEND_URL=%s is written as browsers send it: %s', (FRONTEND_URL, origins) => {
  expect(parseConfig({ FRONTEND_URL }).frontendUrls.join()).toBe(origins)
})

test.each([
  ['PORT', ['0', '1', '65535'], ['-1', '65536', '80a', '8e3', '0x50', '1.5', ' ٨', '99999999999999999999']],
  ['DATABASE_POOL_SIZE', ['1', '1000'], ['0', '1001', 'many', '-5']],
  ['ACCESS_TOKEN_EXPIRE_MINUTES', ['1', '525600'], ['0', '-1', '1.5', 'day', '525601']],
  ['BCRYPT_COST', ['12', '16'], ['11', '3', '17', '31', 'high']],
  ['ALGORITHM', ['HS256', 'HS384', 'HS512'], ['none', 'RS256', 'hs256', 'HS256,none']],
  ['ENVIRONMENT', ['development', 'test', 'production'], ['prod', 'Production', 'staging']],
  ['LOG_LEVEL', ['debug', 'info', 'warn', 'error'], ['trace', 'INFO', 'silent']],
  [
    'FRONTEND_URL',
    [
      'https://a.example',
      'http://[::1]:3000',
      'https://a.example,https://b.example',
      'capacitor://localhost',
      'tauri://localhost/',
      'chrome-extension://abcdefghijklmnopabcdefghijklmnop',
      'app://.',
    ],
    [
      '*',
      'null',
      'a.example',
      'ftp://a.example',
      'https://a.example/path',
      'https://a.example, *',
      'https://*.example.com',
      'https://user:pw@a.example',
      'https://a.example,,',
      'https://a.example?',
      'file://',
      'file:///index.html',
      'file://localhost',
      'wss://a.example',
      'localhost:3000',
      'data:text/html,x',
      'capacitor://',
      'capacitor:///localhost',
      'capacitor://localhost/path',
      'capacitor://user@localhost',
      'capacitor://*',
    ],
  ],
  ['TRUSTED_PROXIES', ['10.0.0.0/8', '::1', '127.0.0.1'], ['everyone', '10.0.0.0/33', '10.0.0', '*']],
  [
    'DATABASE_URL',
    [
      url,
      'postgresql://h/d',
      'postgres://u:p@h1:5432,h2:5433/d?sslmode=require',
      'postgres://h1,h2/d',
      'postgres://u:p%40w@h/d',
    ],
    ['mysql://h/d', 'h:5432', 'postgres://', 'postgres:///', 'http://h/d', 'sqlite:x', 'postgres://h:port/d'],
  ],
  [
    'SECRET_KEY',
    [
      secret,
      '7Q3wYJ5mK0vF8xLrB2nHcT6pZsD9aGeU',
      `${'🦆🐢🦉🐝🦊🐙🦔🐌'.repeat(3)}🐞🦀🐳🦎🐸🦇🐿🦭`,
      'four score and seven years ago our fathers',
    ],
    [
      secret.slice(1),
      '🦆🐢🦉🐝🦊🐙🦔🐌🐞🦀🐳🦎🐸🦇🐿🦭🐺🦝🐗🐴',
      'secret',
      'changeme',
      'your-secret-key-here',
      'your-secret-key-here-use-openssl-rand-hex-32',
      'YOUR-SECRET-KEY-HERE-USE-OPENSSL-RAND-HEX-32',
      'your-secret-key-here-change-in-production',
      'Change-Me-To-Something-Random-Please',
      'changemechangemechangemechangeme',
      'reference-secret-reference-secret-0123',
      'super_secret_jwt_key_do_not_share_1',
      'a-string-secret-at-least-256-bits-long',
      'please-replace-this-with-a-random-key',
      'this-is-only-an-EXAMPLE-key-for-local-use',
      'django-insecure-3k!x)q8z$w@5m1v7p2r9t4y6',
      'MyPassword-MyPassword-2024-MyPassword',
      '09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7',
      '0123456789abcdef0123456789abcdef',
      'abcdefghijklmnopqrstuvwxyzABCDEFGHIJ',
      'x'.repeat(32),
      '🦆'.repeat(32),
      'abc'.repeat(12),
      'Tr0ub4dor&3xTr0ub4dor&3xTr0ub4dor&3x',
      '10100011101011110010101100101010010110',
    ],
  ],
])('%s is checked', (name, right, wrong) => {
  for (const value of right) expect([value, mistakes({ [name]: value })]).toEqual([value, []])
  for (const value of wrong) {
    const found = mistakes({ [name]: value })
    expect([value, found]).toEqual([value, [expect.stringContaining(name)]])
    // By name, never by value.
    if (value.length > 3)
      expect(found[0]!.replace(/such as .*|must look like .*|one of .*/, '')).not.toContain(value)
  }
})

describe('the secret', () => {
  test('is needed in production on PostgreSQL only, where replicas must share it', () => {
    const needed = [expect.stringContaining('SECRET_KEY')]
    expect(mistakes({ ENVIRONMENT: 'production', DATABASE_URL: url })).toEqual(needed)
    expect(mistakes({ ENVIRONMENT: 'production' })).toEqual([])
    expect(mistakes({ DATABASE_URL: url })).toEqual([])
    expect(mistakes({ ENVIRONMENT: 'production', DATABASE_URL: url, SECRET_KEY: secret })).toEqual([])
  })

  test('and the address of the database may come from files', () => {
    const config = parseConfig({
      SECRET_KEY_FILE: fileWith(`${secret}\n`),
      DATABASE_URL_FILE: fileWith(`  ${url}\r\n`),
    })

    expect(config).toMatchObject({ secretKey: secret, database: { kind: 'postgres', url } })
  })

  test('from a file is checked like any other, and a file that cannot be used is a mistake', () => {
    const missing = join(folder, 'geheim-is-not-here')
    for (const [file, reason] of [
      [missing, 'ENOENT'],
      [folder, 'EISDIR'],
      [fileWith(''), 'empty'],
      [fileWith(' \n'), 'empty'],
      [fileWith('changeme-change-me-change-it-now-please'), 'published'],
      [fileWith('short'), '32'],
    ] as const) {
      const found = mistakes({ SECRET_KEY_FILE: file })
      expect(found).toEqual([expect.stringContaining(reason)])
      expect(found[0]).toContain('SECRET_KEY')
      expect(found[0]).not.toContain('geheim')
    }
  })

  test('cannot be given twice', () => {
    expect(mistakes({ SECRET_KEY: secret, SECRET_KEY_FILE: fileWith(secret) })).toEqual([
      expect.stringContaining('both'),
    ])
  })
})

test('no random secret is taken for a placeholder', () => {
  for (let i = 0; i < 2000; i++) {
    const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(32)))
    for (const value of [bytes.toString('hex'), bytes.toString('base64'), bytes.toString('hex', 16)]) {
      expect([value, mistakes({ SECRET_KEY: value })]).toEqual([value, []])
    }
  }
})

test('a placeholder is for tests', () => {
  const SECRET_KEY = 'test-secret-test-secret-test-secret-0123'
  expect(mistakes({ ENVIRONMENT: 'test', SECRET_KEY })).toEqual([])
  for (const ENVIRONMENT of ['development', 'production', undefined]) {
    expect(mistakes({ ENVIRONMENT, SECRET_KEY })).toEqual([
      expect.stringMatching(/^SECRET_KEY is a placeholder/),
    ])
  }
})

test('a cheap hash is for tests', () => {
  expect(mistakes({ ENVIRONMENT: 'test', BCRYPT_COST: '4' })).toEqual([])
  expect(mistakes({ ENVIRONMENT: 'test', BCRYPT_COST: '3' })).toHaveLength(1)
  for (const ENVIRONMENT of ['development', 'production']) {
    expect(mistakes({ ENVIRONMENT, BCRYPT_COST: '11' })).toEqual([expect.stringContaining('BCRYPT_COST')])
  }
})

const wrong = {
  PORT: 'geheim-1',
  DATABASE_URL: 'geheim-2',
  SECRET_KEY: 'geheim-3',
  ALGORITHM: 'geheim-4',
  ENVIRONMENT: 'geheim-5',
  LOG_LEVEL: 'geheim-6',
  FRONTEND_URL: 'geheim-7',
  BCRYPT_COST: 'geheim-8',
  ACCESS_TOKEN_EXPIRE_MINUTES: 'geheim-9',
  TRUSTED_PROXIES: 'geheim-10',
}

test('all mistakes are reported at once, by name and without the values', () => {
  const found = mistakes(wrong)

  for (const name of Object.keys(wrong)) expect(found.filter(line => line.startsWith(name))).toHaveLength(1)
  expect(found).toHaveLength(Object.keys(wrong).length)
  expect(found.join()).not.toContain('geheim')
})

test.each<[string, Env]>([
  ['DATABASE_URL must look like', { DATABASE_URL: 'mysql://db/todo' }],
  ['DATABASE_URL_FILE cannot be read', { DATABASE_URL_FILE: '/nope' }],
])('%s: the other settings are judged as with a right one', (about, database) => {
  const production = { ENVIRONMENT: 'production', WORKERS: '2' }
  const others = { DATABASE_POOL_SIZE: '0', DATABASE_PREPARE: 'no', BACKUP_EVERY: '6h' }
  const withRightOne = mistakes({ ...production, ...others, DATABASE_URL: url })

  expect(withRightOne).toHaveLength(4)
  expect(mistakes({ ...production, ...others, ...database })).toEqual([
    expect.stringContaining(about),
    ...withRightOne,
  ])
  expect(mistakes({ ...production, ...database, SECRET_KEY_FILE: '/nope' })).toEqual([
    expect.stringContaining(about),
    'SECRET_KEY_FILE cannot be read (ENOENT)',
  ])
})

describe('the program', () => {
  const main = join(import.meta.dir, '../src/main.ts')

  /** Runs it in a folder of its own, which `prepare` may fill. */
  async function run(args: string[], env: Record<string, string>, prepare?: (cwd: string) => void) {
    const cwd = mkdtempSync(join(folder, 'run-'))
    prepare?.(cwd)
    const child = Bun.spawn([process.execPath, '--no-env-file', main, ...args], {
      cwd,
      env: { PATH: process.env.PATH ?? '', ...env },
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: 20_000,
    })
    return outcomeOf(child)
  }

  test.each(['serve', 'migrate', 'healthcheck'])(
    '%s with wrong settings exits 2 and names every mistake on stderr',
    async command => {
      const { exitCode, stdout, stderr } = await run([command], wrong)

      expect([exitCode, stdout]).toEqual([2, ''])
      for (const name of Object.keys(wrong)) expect(stderr).toContain(name)
      expect(stderr).not.toContain('geheim')
      expect(stderr).not.toContain('    at ')
    },
  )

  test('reads .env, and the environment wins', async () => {
    const dotEnv = (cwd: string) =>
      writeFileSync(
        join(cwd, '.env'),
        '# settings\nPORT=geheim-1\nexport LOG_LEVEL="geheim-6"\nALGORITHM=\'HS512\'\n',
      )
    const fromFile = await run(['migrate'], {}, dotEnv)
    const overruled = await run(['migrate'], { PORT: '0', ENVIRONMENT: 'nonsense' }, dotEnv)

    expect([fromFile.exitCode, overruled.exitCode]).toEqual([2, 2])
    expect(fromFile.stderr).toContain('PORT')
    expect(fromFile.stderr).toContain('LOG_LEVEL')
    expect(fromFile.stderr).not.toContain('ALGORITHM')
    expect(overruled.stderr).toContain('ENVIRONMENT')
    expect(overruled.stderr).not.toContain('PORT')
  })

  test('reads no other file than .env', async () => {
    const { exitCode, stderr } = await run(['migrate'], {}, cwd => {
      for (const name of ['.env.local', '.env.production', '.env.development', '.env.test'])
        writeFileSync(join(cwd, name), 'PORT=wrong')
      writeFileSync(join(cwd, '.env'), 'ENVIRONMENT=wrong')
    })

    expect(exitCode).toBe(2)
    expect(stderr).toContain('ENVIRONMENT')
    expect(stderr).not.toContain('PORT')
  })

  test.each(['serve', 'config', 'doctor'])('%s names a .env that is a folder', async command => {
    const outcome = await run([command], {}, cwd => mkdirSync(join(cwd, '.env')))

    expect(`${outcome.stdout}${outcome.stderr}`).toContain('.env cannot be read (EISDIR)')
    expect(outcome.exitCode).toBe(command === 'doctor' ? 1 : 2)
  })
})

describe('the first user', () => {
  const email = 'ada@example.com'
  const password = 'correct horse'

  test('has an address, and a password from a file or the environment', () => {
    for (const given of [{ FIRST_USER_PASSWORD: password }, { FIRST_USER_PASSWORD_FILE: fileWith(password) }])
      expect(parseConfig({ FIRST_USER_EMAIL: email, ...given }).firstUser).toEqual({ email, password })
    expect(parseConfig({}).firstUser).toBeUndefined()
  })

  test.each([
    [{ FIRST_USER_EMAIL: email }, ['FIRST_USER_EMAIL and FIRST_USER_PASSWORD_FILE']],
    [{ FIRST_USER_PASSWORD: password }, ['FIRST_USER_EMAIL and FIRST_USER_PASSWORD_FILE']],
    [{ FIRST_USER_EMAIL: email, FIRST_USER_PASSWORD: 'geheim' }, ['FIRST_USER_PASSWORD must have']],
    ...['geheim'.repeat(20), '🦆geheim'.repeat(8), 'geheim\0geheim', '🦆geheim'].map(text => [
      { FIRST_USER_EMAIL: email, FIRST_USER_PASSWORD: text },
      ['FIRST_USER_PASSWORD must have'],
    ]),
    [
      { FIRST_USER_EMAIL: email, FIRST_USER_PASSWORD_FILE: '/geheim' },
      ['FIRST_USER_PASSWORD_FILE cannot be read'],
    ],
    [
      { FIRST_USER_EMAIL: 'geheim', FIRST_USER_PASSWORD: 'geheim' },
      ['FIRST_USER_EMAIL must be', 'FIRST_USER_PASSWORD must have'],
    ],
  ] as [Env, string[]][])('%o is a mistake, which is named without a value', (env, expected) => {
    const found = mistakes(env)
    expect(found).toEqual(expected.map(text => expect.stringContaining(text)))
    expect(found.join()).not.toContain('geheim')
  })

  test('may be the only one: REGISTRATION is open or closed', () => {
    expect(parseConfig({}).registration).toBe('open')
    expect(parseConfig({ REGISTRATION: 'closed' }).registration).toBe('closed')
    expect(mistakes({ REGISTRATION: 'false' })).toEqual(['REGISTRATION must be one of open, closed'])
  })
})
