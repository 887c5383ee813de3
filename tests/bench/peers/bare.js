// A server by hand, as users write it: Bun.serve and postgres.js with their defaults. It believes the client
// (`x-user`), checks nothing and logs nothing.
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL)
const columns = sql`id, user_id, title, description, status, priority, due_at, tags, list_id, parent_id, position, completed_at, created_at, updated_at, version::int`

Bun.serve({
  port: Number(process.env.PORT),
  hostname: '127.0.0.1',
  development: false,
  routes: {
    '/health': () => Response.json({ status: 'healthy' }),
    '/api/v1/tasks': {
      async GET(request) {
        const query = new URL(request.url).searchParams
        const status = query.get('status')
        const cursor = query.get('cursor')?.split('_')
        const rows = await sql`
          select ${columns} from tasks where user_id = ${request.headers.get('x-user')} and deleted_at is null
          ${status ? sql`and status = ${status}` : sql``}
          ${cursor ? sql`and (created_at, id) < (${cursor[0]}, ${cursor[1]})` : sql``}
          order by created_at desc, id desc limit ${Number(query.get('limit') ?? 50)}`
        const last = rows.at(-1)
        if (last && status) {
          query.set('cursor', `${last.created_at.toISOString()}_${last.id}`)
          return Response.json(rows, { headers: { link: `</api/v1/tasks?${query}>; rel="next"` } })
        }
        return Response.json(rows)
      },
      async POST(request) {
        const user = request.headers.get('x-user')
        const task = await request.json()
        const [row] = await sql`
          with next_version as (update user_versions set last_version = last_version + 1 where user_id = ${user} returning last_version)
          insert into tasks (id, user_id, title, description, priority, tags, version)
          select ${Bun.randomUUIDv7()}::uuid, ${user}::uuid, ${task.title}, ${task.description ?? null}, ${task.priority ?? 0}::smallint,
                 ${task.tags ?? []}::text[], last_version from next_version
          returning ${columns}`
        return Response.json(row, { status: 201 })
      },
    },
    '/api/v1/tasks/:id': {
      async GET(request) {
        const [row] = await sql`
          select ${columns} from tasks
          where id = ${request.params.id} and user_id = ${request.headers.get('x-user')} and deleted_at is null`
        return row ? Response.json(row) : Response.json({ detail: 'Task not found' }, { status: 404 })
      },
      async PATCH(request) {
        const user = request.headers.get('x-user')
        const { title = null, status = null } = await request.json()
        const [row] = await sql`
          with next_version as (update user_versions set last_version = last_version + 1 where user_id = ${user} returning last_version)
          update tasks t set title = coalesce(${title}, title), status = coalesce(${status}, status),
            updated_at = now(), version = next_version.last_version from next_version
          where id = ${request.params.id} and user_id = ${user} and deleted_at is null
          returning ${columns}`
        return row ? Response.json(row) : Response.json({ detail: 'Task not found' }, { status: 404 })
      },
    },
  },
})
