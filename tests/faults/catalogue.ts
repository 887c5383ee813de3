import { untilReady } from '../support/executable.ts'
import { execute } from '../support/postgres-server.ts'
import { holdOpen } from '../support/traffic.ts'
import { until } from '../support/until.ts'
import { type Fault, type Stage, untilOver } from './stage.ts'

const ours = `from pg_stat_activity where application_name = 'todo-api'`

/** Changes that a migration may make, each with its way back. */
const typeChanges = [
  ['users', 'email', 'varchar(300)', 'text'],
  ['users', 'email', 'varchar(280)', 'text'],
  ['users', 'password_hash', 'varchar', 'text'],
  ['tasks', 'json', 'varchar', 'text'],
  ['tasks', 'title', 'varchar', 'text'],
  ['tasks', 'description', 'varchar', 'text'],
]
const collationChanges = [
  ['users', 'email', 'text collate "C"', 'text collate "default"'],
  ['tasks', 'json', 'text collate "C"', 'text collate "default"'],
  ['sessions', 'user_agent', 'text collate "C"', 'text collate "default"'],
]

/** The schema. What docs/upgrade.md says of old replicas: a few 503s, and nothing else. */
const refusedMax = 0.05
const changes: Fault[] = [
  { name: 'column types change and change back', refusedMax, run: stage => alter(stage, typeChanges) },
  { name: 'collations change and change back', refusedMax, run: stage => alter(stage, collationChanges) },
  {
    name: 'columns and indexes come and go',
    refusedMax,
    run: stage =>
      untilOver(stage, async sql => {
        await tolerant(sql, 'alter table tasks add column extra jsonb')
        await tolerant(sql, 'create index extra on sessions (last_used_at)')
        await Bun.sleep(50)
        await insist(sql, 'alter table tasks drop column if exists extra')
        await insist(sql, 'drop index if exists extra')
        await Bun.sleep(50)
      }),
  },
]

const sessionCommands: Fault[] = ['deallocate all', 'discard all', 'discard plans'].map(statement => ({
  name: statement,
  run: stage => repeat(stage, 40, () => stage.proxy.inject(statement)),
}))

const statements: Fault[] = [
  {
    name: 'statements are cancelled',
    isFelt: true,
    run: cancel,
  },
  {
    name: 'statements time out in mid-answer',
    isFelt: true,
    async run(stage) {
      const { proxy, random } = stage
      await Promise.all([
        repeat(stage, 50, () => proxy.inject(`set statement_timeout = ${random.between(1, 5)}`)),
        readLongPages(stage),
      ])
      await proxy.inject('reset statement_timeout')
    },
  },
  {
    name: 'errors in the middle of a pipeline',
    run: stage => withTrigger(stage, 'create trigger faulty before insert or update on tasks'),
  },
  {
    name: 'errors at the commit',
    run: stage =>
      withTrigger(
        stage,
        'create constraint trigger faulty after insert or update on tasks deferrable initially deferred',
      ),
  },
]

const backends: Fault[] = [
  {
    name: 'one backend is terminated every 100 ms',
    run: stage => terminate(stage, 'order by random() limit 1', 100),
  },
  { name: 'all backends are terminated', isFelt: true, run: stage => terminate(stage, '', 300) },
]

const server: Fault[] = [
  { name: 'the server is stopped', isFelt: true, run: stage => away(stage, () => stage.server.stop('fast')) },
  {
    name: 'the server is stopped at once',
    isFelt: true,
    run: stage => away(stage, () => stage.server.stop('immediate')),
  },
  { name: 'the server is killed', isFelt: true, run: stage => away(stage, () => stage.server.kill()) },
  {
    name: 'the server is restarted',
    isFelt: true,
    run: ({ server }) => server.stop('fast').then(() => server.start()),
  },
  {
    name: 'the server refuses writes',
    isFelt: true,
    async run({ server, seconds }) {
      await setReadOnly(server.url, 'on')
      await Bun.sleep(seconds * 1000)
      await setReadOnly(server.url, 'off')
    },
  },
  {
    name: 'a table is locked',
    async run({ server, seconds }) {
      const release = await holdOpen(server.url, 'lock table tasks in access exclusive mode')
      await Bun.sleep(seconds * 1000)
      await release()
    },
  },
  {
    name: 'the server is frozen',
    isFelt: true,
    async run({ server, seconds }) {
      server.freeze()
      // Until after the service has given up on every connection.
      await Bun.sleep(2000 + seconds * 500)
      server.thaw()
    },
  },
]

const network: Fault[] = [
  {
    name: 'answers are cut off in the middle',
    isFelt: true,
    run: stage =>
      repeat(stage, 60, () =>
        stage.proxy.cutAfter(() => 1 + stage.random.below(stage.random.pick([300, 60_000]))),
      ),
  },
  {
    name: 'connections are reset',
    isFelt: true,
    run: stage => repeat(stage, 100, () => stage.proxy.drop('reset')),
  },
  {
    name: 'connections are closed in one direction',
    isFelt: true,
    run: stage => repeat(stage, 150, () => stage.proxy.halfClose(stage.random.pick(['client', 'server']))),
  },
  {
    name: 'bytes arrive late',
    run: stage => withFlow(stage, { delayMs: stage.random.between(20, 80) }, stage.seconds),
  },
  { name: 'answers arrive slowly', run: stage => withFlow(stage, { readEveryMs: 10 }, stage.seconds) },
  {
    name: 'answers are lost',
    isFelt: true,
    run: stage => withFlow(stage, { losesAnswers: true }, 2 + stage.seconds / 2),
  },
  {
    name: 'connections are refused',
    isFelt: true,
    async run({ proxy, seconds }) {
      proxy.receive('refuse')
      proxy.drop()
      await Bun.sleep(seconds * 1000)
      proxy.heal()
    },
  },
  { name: 'new connections are held, then all are dropped', isFelt: true, run: holdThenDrop },
  { name: 'held connections are dropped while no client asks', isFelt: true, run: holdThenDropUnasked },
  { name: 'the network does all of this at random', run: disturbAtRandom },
]

/** Everything that can happen to the service while it is connected to the server through the proxy. */
export const faults: Fault[] = [
  ...changes,
  ...sessionCommands,
  ...statements,
  ...backends,
  ...server,
  ...network,
]

/** What can happen behind a PgBouncer. */
export const pooledFaults: Fault[] = [
  ...changes.slice(0, 1),
  {
    name: 'the sessions of the pool forget what was prepared',
    run: stage =>
      untilOver(
        { ...stage, server: { ...stage.server, url: stage.bouncer!.through(stage.server.url) } },
        sql => sql(stage.random.pick(['deallocate all', 'discard plans'])),
      ),
  },
  {
    name: 'statements are cancelled',
    isFelt: true,
    run: cancel,
  },
  ...backends.slice(0, 1),
  ...server.slice(2, 3),
  {
    name: 'the pool is killed',
    isFelt: true,
    async run({ bouncer, seconds }) {
      await bouncer!.kill()
      await Bun.sleep(seconds * 500)
      await bouncer!.start()
    },
  },
]

/** Alters columns one after another and back; those that the schema does not let be altered are left out. */
async function alter(stage: Stage, list: string[][]) {
  const possible = new Set(list)
  await untilOver(stage, async sql => {
    for (const change of possible) {
      const [table, column, type, back] = change
      const outcome = await tolerant(sql, `alter table ${table} alter ${column} type ${type}`)
      await Bun.sleep(30)
      if (outcome === 'refused') possible.delete(change)
      // A change that did not get its lock has changed nothing; the way back may be one that is always refused.
      if (outcome === 'done') await insist(sql, `alter table ${table} alter ${column} type ${back}`)
      await Bun.sleep(30)
    }
  })
  if (possible.size === 0) throw new Error('no column could be altered')
}

type Sql = (statement: string) => Promise<unknown>

/** Runs a statement that waits for no lock for long: others would wait behind it. */
async function tolerant(sql: Sql, statement: string): Promise<'done' | 'busy' | 'refused'> {
  try {
    await sql(`set lock_timeout = 300`)
    await sql(statement)
    return 'done'
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    return code === '55P03' || code.startsWith('57') ? 'busy' : 'refused'
  }
}

async function insist(sql: Sql, statement: string) {
  let outcome = ''
  for (let i = 0; i < 100; i++) {
    outcome = await tolerant(sql, statement)
    if (outcome === 'done') return
  }
  throw new Error(`not possible (${outcome}): ${statement}`)
}

/** Does something again and again until the time is over, with a pause after each. */
async function repeat({ seconds }: Stage, pauseMs: number, step: () => unknown) {
  const end = performance.now() + seconds * 1000
  while (performance.now() < end) {
    await step()
    await Bun.sleep(pauseMs)
  }
}

/**
 * Cancels whatever is being answered, again and again, while long pages are. The loop runs in the server, and goes on
 * until it has met some statements.
 */
async function cancel(stage: Stage) {
  const { clients } = stage
  const loop = `do $$ begin
    for i in 1..20 loop
      perform pg_cancel_backend(pid) ${ours} and state = 'active';
      perform pg_stat_clear_snapshot(), pg_sleep(random() * 0.004);
    end loop;
  end $$`
  const wanted = clients.refusals() + 10
  await Promise.all([
    untilOver(
      stage,
      sql => sql(loop),
      () => clients.refusals() >= wanted,
    ),
    readLongPages(stage),
  ])
}

const readLongPages = (stage: Stage) => repeat(stage, 20, () => stage.clients.burst('long pages'))

/** A fifth of the writes fail as if they had lost a race: the service may answer them with 503 only. */
async function withTrigger({ server, seconds }: Stage, create: string) {
  await execute(
    server.url,
    `create or replace function faulty() returns trigger language plpgsql as $$ begin
       if random() < 0.2 then raise exception 'lost a race' using errcode = '40001'; end if;
       return new;
     end $$`,
  )
  await execute(server.url, `${create} for each row execute function faulty()`)
  await Bun.sleep(seconds * 1000)
  await execute(server.url, 'drop trigger faulty on tasks')
}

const terminate = (stage: Stage, which: string, pauseMs: number) =>
  untilOver(stage, async sql => {
    await sql(`select pg_terminate_backend(pid) from (select pid ${ours} ${which}) one`)
    await Bun.sleep(pauseMs)
  })

async function away({ server, seconds }: Stage, leave: () => Promise<void>) {
  await leave()
  await Bun.sleep(seconds * 700)
  await server.start()
}

async function setReadOnly(url: string, value: 'on' | 'off') {
  await execute(url, `alter system set default_transaction_read_only = ${value}`)
  await execute(url, 'select pg_reload_conf()')
}

async function withFlow({ proxy }: Stage, flow: Partial<Stage['proxy']['flow']>, seconds: number) {
  Object.assign(proxy.flow, flow)
  await Bun.sleep(seconds * 1000)
  // What was lost on a connection stays lost: it ends, as it does when a route changes.
  if (flow.losesAnswers) proxy.drop('reset')
  proxy.heal()
}

async function holdThenDrop({ proxy, seconds }: Stage) {
  proxy.receive('hold')
  await Bun.sleep(seconds * 500)
  proxy.drop()
  await Bun.sleep(seconds * 700)
  proxy.dropHeld()
  proxy.heal()
}

/** The clients are answered over one connection while others are being opened; then all end, and no client waits. */
async function holdThenDropUnasked({ proxy, clients, api }: Stage) {
  await clients.pause()
  proxy.drop()
  await until(() => proxy.connections() === 0)
  await untilReady(api)
  proxy.receive('hold')
  // Again while the pool rests, after a connection that could not be opened.
  await until(async () => {
    await clients.burst('short pages')
    return proxy.held() > 0
  })
  // Until the pool has nothing to look after.
  await Bun.sleep(200)
  proxy.drop()
  await Bun.sleep(100)
  proxy.dropHeld()
  await Bun.sleep(100)
  proxy.heal()
  clients.resume()
}

async function disturbAtRandom(stage: Stage) {
  const { proxy, random } = stage
  const steps: (() => unknown)[] = [
    () => proxy.receive('hold'),
    () => proxy.receive('refuse'),
    () => proxy.receive('forward'),
    () => proxy.drop(random.pick(['close', 'reset'])),
    () => proxy.cutAfter(() => random.below(20_000)),
    () => proxy.halfClose(random.pick(['client', 'server'])),
    () => stage.clients.pause(),
    () => stage.clients.resume(),
    () => {
      proxy.flow.delayMs = random.pick([0, 0, 50])
    },
  ]
  await repeat(stage, 0, async () => {
    await random.pick(steps)()
    await Bun.sleep(random.between(10, 250))
  })
  proxy.drop()
  proxy.dropHeld()
  proxy.heal()
  stage.clients.resume()
}
