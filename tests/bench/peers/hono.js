// Hono on Bun with postgres.js, tuned: four connections, prepared statements, timestamps as text, plans kept. It verifies
// the token and looks the session up at each request.
import { Hono } from 'hono'
import { jwt } from 'hono/jwt'
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL, {
  max: 4,
  connection: { TimeZone: 'UTC', plan_cache_mode: 'force_generic_plan' },
  types: {
    text: {
      to: 25,
      from: [1184],
      serialize: text => text,
      parse: text => `${text.slice(0, 10)}T${text.slice(11, -3)}Z`,
    },
  },
})
const columns = sql`id, user_id, title, description, status, priority, due_at, tags, list_id, parent_id, position, completed_at, created_at, updated_at, version::int`

const app = new Hono()
app.get('/health', c => c.json({ status: 'healthy' }))
app.use('/api/*', jwt({ secret: process.env.SECRET_KEY, alg: 'HS256' }))
app.use('/api/*', async (c, next) => {
  const { sub, sid } = c.get('jwtPayload')
  const [session] =
    await sql`select id from sessions where id = ${sid} and user_id = ${sub} and expires_at > now()`
  if (!session) return c.json({ detail: 'Could not validate credentials' }, 401)
  c.set('user', sub)
  await next()
})

const tasks = '/api/v1/tasks'
const missing = c => c.json({ detail: 'Task not found' }, 404)

app.get(tasks, async c => {
  const { limit = '50', status, cursor } = c.req.query()
  const [at, id] = cursor?.split('_') ?? []
  const rows = await sql`
    select ${columns} from tasks where user_id = ${c.get('user')} and deleted_at is null
    ${status ? sql`and status = ${status}` : sql``}
    ${at ? sql`and (created_at, id) < (${at}, ${id})` : sql``}
    order by created_at desc, id desc limit ${Number(limit)}`
  const last = rows.at(-1)
  if (last && status)
    c.header(
      'link',
      `<${tasks}?limit=${limit}&status=${status}&cursor=${last.created_at}_${last.id}>; rel="next"`,
    )
  return c.json(rows)
})

app.post(tasks, async c => {
  const user = c.get('user')
  const { title, description = null, priority = 0, tags = [] } = await c.req.json()
  if (typeof title !== 'string' || title.length < 1 || title.length > 200)
    return c.json({ detail: 'title' }, 422)
  const [task] = await sql`
    with next_version as (update user_versions set last_version = last_version + 1 where user_id = ${user} returning last_version)
    insert into tasks (id, user_id, title, description, priority, tags, version)
    select ${Bun.randomUUIDv7()}::uuid, ${user}::uuid, ${title}, ${description}, ${priority}::smallint, ${tags}::text[], last_version from next_version
    returning ${columns}`
  return c.json(task, 201)
})

app.get(`${tasks}/:id`, async c => {
  const [task] = await sql`
    select ${columns} from tasks where id = ${c.req.param('id')} and user_id = ${c.get('user')} and deleted_at is null`
  return task ? c.json(task) : missing(c)
})

app.patch(`${tasks}/:id`, async c => {
  const user = c.get('user')
  const { title = null, status = null } = await c.req.json()
  if (title !== null && (typeof title !== 'string' || title.length < 1 || title.length > 200))
    return c.json({ detail: 'title' }, 422)
  const [task] = await sql`
    with next_version as (update user_versions set last_version = last_version + 1 where user_id = ${user} returning last_version)
    update tasks t set title = coalesce(${title}, title), status = coalesce(${status}, status), updated_at = now(), version = next_version.last_version
    from next_version where id = ${c.req.param('id')} and user_id = ${user} and deleted_at is null
    returning ${columns}`
  return task ? c.json(task) : missing(c)
})

Bun.serve({ port: Number(process.env.PORT), hostname: '127.0.0.1', development: false, fetch: app.fetch })
