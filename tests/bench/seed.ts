import { createHmac } from 'node:crypto'
import postgres from 'postgres'

export const secretKey = '58b49a2cb5ab63ce16b08e9c6b9fcee58d0f4b71'
export const password = 'correct horse'
/** What is made by a run is newer than this, and what was seeded older. */
const seededUntil = '2026-06-01 00:00:00+00'

/** A user who is signed in, and some of whose tasks are known. */
export interface User {
  id: string
  email: string
  token: string
  tasks: string[]
}

/** Ids of the same look as the service makes (UUIDv7), from a moment and a text: the same at every run. */
const uuidOf = (moment: string, seed: string) => `(
  lpad(to_hex((extract(epoch from ${moment}) * 1000)::bigint), 12, '0') || '7' || substr(md5(${seed}), 1, 3) || '8' ||
  substr(md5(${seed}), 4, 15))::uuid`

const userId = (i: string) =>
  uuidOf(`timestamptz '2026-01-01' + ${i} * interval '1 minute'`, `'user ' || ${i}`)
const sessionId = (i: string) =>
  uuidOf(`timestamptz '2026-05-01' + ${i} * interval '1 minute'`, `'session ' || ${i}`)

/**
 * Users who are signed in, each with tasks that look like real ones: made by the database itself, the same at every
 * run. `tasksOf` is SQL that says how many tasks user `p.i` (from 1) has. Users that exist are left alone.
 */
export async function seed(
  url: string,
  { from = 1, users, tasksOf }: { from?: number; users: number; tasksOf: string },
) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  const hash = await Bun.password.hash(password, { algorithm: 'bcrypt', cost: 12 })
  const range = `generate_series(${from}, ${from + users - 1}) as p(i)`
  // As a machine with 2 GB would be loaded: the indexes are made row by row, as they grow in real life.
  await sql.unsafe(`
    set synchronous_commit = off;
    insert into users (id, email, normalized_email, password_hash, created_at, updated_at)
      select ${userId('p.i')}, 'user' || p.i || '@example.com', 'user' || p.i || '@example.com', '${hash}', '2026-01-01', '2026-01-01'
      from ${range};
    insert into sessions (id, user_id, token_hash, expires_at)
      select ${sessionId('p.i')}, ${userId('p.i')}, md5('a' || p.i) || md5('b' || p.i), now() + interval '30 days' from ${range};
    insert into user_versions (user_id, last_version) select ${userId('p.i')}, ${tasksOf} from ${range};
    insert into tasks (id, user_id, title, description, status, priority, due_at, tags, position, completed_at, created_at, updated_at, version)
    select ${uuidOf('t.at', `p.i || ' ' || n`)}, ${userId('p.i')},
      'Task ' || n || ': ' || (array['buy milk for the week', 'call the dentist back', 'write the report', 'water the plants', 'book a table for six'])[1 + t.r % 5],
      case when t.r % 3 > 0 then 'Remember to ' || (array['take the blue one, two litres of it', 'ask about Thursday afternoon', 'send a copy to all the users who came'])[1 + t.r % 3] || ', as we said on the phone.' end,
      t.status, t.r % 5, case when t.r % 2 = 0 then t.at + (t.r % 40) * interval '1 day' end,
      (array['{}', '{home}', '{work}', '{home,errands}']::text[][])[1 + t.r % 4]::text[], 'a' || n,
      case when t.status = 'completed' then t.at + interval '1 day' end, t.at, t.at, n
    from ${range}, generate_series(1, ${tasksOf}) as n,
      lateral (select ('x' || substr(md5(p.i || ' ' || n), 1, 7))::bit(28)::int as r) x,
      lateral (select r, (array['pending', 'pending', 'in_progress', 'completed'])[1 + r / 7 % 4] as status,
        timestamptz '${seededUntil}' - (${tasksOf} - n) * interval '1 hour' - r % 3600000 * interval '1003 microseconds' as at) t`)
  await sql.end()
  await settle(url)
}

/** Takes away what a run has made, and leaves the tables as autovacuum would: the next server finds what this one found. */
export async function tidy(url: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  await sql`delete from tasks where created_at > ${seededUntil}`
  await sql.end()
  await settle(url)
}

/**
 * Makes the table of tasks what users without a feed, a trash or ready JSON would have: plain columns, a primary key and
 * the index of the list. The peers are measured on it, so that they do not pay for what only ours reads.
 */
export async function makePlain(url: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  await sql.unsafe(`
    create table plain (
      id uuid primary key, user_id uuid not null, title text not null, description text,
      status text not null default 'pending', priority smallint not null default 0, due_at timestamptz,
      tags text[] not null default '{}', list_id uuid, parent_id uuid, position text not null default '',
      completed_at timestamptz,
      created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
      version bigint not null, deleted_at timestamptz
    );
    insert into plain select id, user_id, title, description, status, priority, due_at, tags, list_id, parent_id, position,
      completed_at, created_at, updated_at, version, deleted_at from tasks order by user_id, created_at;
    drop table tasks cascade;
    alter table plain rename to tasks;
    create index on tasks (user_id, created_at, id)`)
  await sql.end()
  await settle(url)
}

async function settle(url: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  await sql.unsafe('vacuum (analyze)')
  await sql.unsafe('checkpoint')
  await sql.end()
}

/** The users `from`, `from + 1`, … with a token each, and some of their tasks. */
export async function signedIn(
  url: string,
  { from = 1, users }: { from?: number; users: number },
): Promise<User[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  const rows = await sql.unsafe(`
    select u.id, u.email, ${sessionId('p.i')} as sid,
      array(select id::text from tasks t where t.user_id = u.id and deleted_at is null order by created_at desc, id desc limit 20) as tasks
    from generate_series(${from}, ${from + users - 1}) as p(i) join users u on u.id = ${userId('p.i')} order by p.i`)
  await sql.end()
  return rows.map(({ id, email, sid, tasks }) => ({ id, email, tasks, token: tokenOf(id, sid) }))
}

function tokenOf(sub: string, sid: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = Math.floor(Date.now() / 1000) + 24 * 3600
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub, sid, exp })}`
  return `${text}.${createHmac('sha256', secretKey).update(text).digest('base64url')}`
}
