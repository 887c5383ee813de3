// The same, tuned by measurements: four connections, timestamps as text, rows as arrays, statements written
// out once, plans kept. It still believes the client, checks nothing and logs nothing.
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL, {
  max: 4,
  fetch_types: false,
  connection: { TimeZone: 'UTC', plan_cache_mode: 'force_generic_plan' },
  types: { text: { to: 25, from: [1184], serialize: text => text, parse: text => text } },
})
const columns =
  'id, title, description, status, priority, due_at, tags, list_id, parent_id, position, completed_at, created_at, updated_at, version::int'
const run = (text, values) => sql.unsafe(text, values, { prepare: true }).values()

const instant = text => text && `${text.slice(0, 10)}T${text.slice(11, -3)}Z`
const toTags = text => (text === '{}' ? [] : text.slice(1, -1).split(','))
const toTask = (row, user) => ({
  id: row[0],
  user_id: user,
  title: row[1],
  description: row[2],
  status: row[3],
  priority: row[4],
  due_at: instant(row[5]),
  tags: toTags(row[6]),
  list_id: row[7],
  parent_id: row[8],
  position: row[9],
  completed_at: instant(row[10]),
  created_at: instant(row[11]),
  updated_at: instant(row[12]),
  version: row[13],
})

const list = `select ${columns} from tasks where user_id = $1 and deleted_at is null order by created_at desc, id desc limit $2`
const listStatus = `select ${columns} from tasks where user_id = $1 and deleted_at is null and status = $3 order by created_at desc, id desc limit $2`
const listAfter = `select ${columns} from tasks where user_id = $1 and deleted_at is null and status = $3 and (created_at, id) < ($4, $5)
  order by created_at desc, id desc limit $2`
const read = `select ${columns} from tasks where id = $1 and user_id = $2 and deleted_at is null`
const nextVersion =
  'with next_version as (update user_versions set last_version = last_version + 1 where user_id = $2 returning last_version)'
const create = `${nextVersion} insert into tasks (id, user_id, title, description, priority, tags, version)
  select $1, $2, $3, $4, $5, $6, last_version from next_version returning ${columns}`
const update = `${nextVersion} update tasks t set title = coalesce($3, title), status = coalesce($4, status), updated_at = now(), version = next_version.last_version
  from next_version where id = $1 and user_id = $2 and deleted_at is null returning ${columns}`

const missing = () => Response.json({ detail: 'Task not found' }, { status: 404 })

Bun.serve({
  port: Number(process.env.PORT),
  hostname: '127.0.0.1',
  development: false,
  routes: {
    '/health': () => Response.json({ status: 'healthy' }),
    '/api/v1/tasks': {
      async GET(request) {
        const user = request.headers.get('x-user')
        const query = new URLSearchParams(request.url.slice(request.url.indexOf('?') + 1))
        const limit = Number(query.get('limit') ?? 50)
        const status = query.get('status')
        if (!status) return Response.json((await run(list, [user, limit])).map(row => toTask(row, user)))
        const cursor = query.get('cursor')?.split('_')
        const rows = cursor
          ? await run(listAfter, [user, limit, status, ...cursor])
          : await run(listStatus, [user, limit, status])
        const tasks = rows.map(row => toTask(row, user))
        const last = tasks.at(-1)
        const next =
          last && `/api/v1/tasks?limit=${limit}&status=${status}&cursor=${last.created_at}_${last.id}`
        return Response.json(tasks, next ? { headers: { link: `<${next}>; rel="next"` } } : undefined)
      },
      async POST(request) {
        const user = request.headers.get('x-user')
        const { title, description = null, priority = 0, tags = [] } = await request.json()
        const values = [Bun.randomUUIDv7(), user, title, description, priority, `{${tags.join(',')}}`]
        const [row] = await run(create, values)
        return Response.json(toTask(row, user), { status: 201 })
      },
    },
    '/api/v1/tasks/:id': {
      async GET(request) {
        const user = request.headers.get('x-user')
        const [row] = await run(read, [request.params.id, user])
        return row ? Response.json(toTask(row, user)) : missing()
      },
      async PATCH(request) {
        const user = request.headers.get('x-user')
        const { title = null, status = null } = await request.json()
        const [row] = await run(update, [request.params.id, user, title, status])
        return row ? Response.json(toTask(row, user)) : missing()
      },
    },
  },
})
