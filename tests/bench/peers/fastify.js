// Fastify 5 on Node with pg, tuned: four kept connections, named statements, timestamps as text, plans kept, response
// schemas, and fast-jwt's cache of verified tokens. It looks the session up at each request.

import { randomUUID } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import Fastify from 'fastify'
import pg from 'pg'

pg.types.setTypeParser(1184, text => `${text.slice(0, 10)}T${text.slice(11, -3)}Z`)
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 4,
  idleTimeoutMillis: 0,
  options: '-c TimeZone=UTC -c plan_cache_mode=force_generic_plan',
})
const columns =
  'id, user_id, title, description, status, priority, due_at, tags, list_id, parent_id, position, completed_at, created_at, updated_at, version::int'
const statement = (name, text) => async values => (await pool.query({ name, text, values })).rows

const session = statement(
  'session',
  'select id from sessions where id = $1 and user_id = $2 and expires_at > now()',
)
const page = 'order by created_at desc, id desc limit $2'
const list = statement(
  'list',
  `select ${columns} from tasks where user_id = $1 and deleted_at is null ${page}`,
)
const listStatus = statement(
  'list_status',
  `select ${columns} from tasks where user_id = $1 and deleted_at is null and status = $3 ${page}`,
)
const listAfter = statement(
  'list_after',
  `select ${columns} from tasks where user_id = $1 and deleted_at is null and status = $3 and (created_at, id) < ($4, $5) ${page}`,
)
const read = statement(
  'read',
  `select ${columns} from tasks where id = $1 and user_id = $2 and deleted_at is null`,
)
const nextVersion =
  'with next_version as (update user_versions set last_version = last_version + 1 where user_id = $2 returning last_version)'
const create = statement(
  'create',
  `${nextVersion} insert into tasks (id, user_id, title, description, priority, tags, version)
   select $1, $2, $3, $4, $5, $6, last_version from next_version returning ${columns}`,
)
const update = statement(
  'update',
  `${nextVersion} update tasks t set title = coalesce($3, title), status = coalesce($4, status), updated_at = now(), version = next_version.last_version
   from next_version where id = $1 and user_id = $2 and deleted_at is null returning ${columns}`,
)

const text = { type: 'string' }
const textOrNull = { type: ['string', 'null'] }
const task = {
  type: 'object',
  properties: {
    id: text,
    user_id: text,
    title: text,
    description: textOrNull,
    status: text,
    priority: { type: 'integer' },
    due_at: textOrNull,
    tags: { type: 'array', items: text },
    list_id: textOrNull,
    parent_id: textOrNull,
    position: text,
    completed_at: textOrNull,
    created_at: text,
    updated_at: text,
    version: { type: 'integer' },
  },
}
const title = { type: 'string', minLength: 1, maxLength: 200 }
const missing = reply => reply.code(404).send({ detail: 'Task not found' })

const app = Fastify({ logger: false })
app.get('/health', async () => ({ status: 'healthy' }))
app.register(fastifyJwt, { secret: process.env.SECRET_KEY, verify: { algorithms: ['HS256'], cache: 10_000 } })
app.register(
  async api => {
    api.addHook('onRequest', async (request, reply) => {
      const { sub, sid } = await request.jwtVerify()
      const [found] = await session([sid, sub])
      if (!found) return reply.code(401).send({ detail: 'Could not validate credentials' })
    })
    const querystring = {
      type: 'object',
      properties: {
        limit: { type: 'integer', minimum: 1, maximum: 200, default: 50 },
        status: text,
        cursor: text,
      },
    }
    api.get(
      '',
      { schema: { querystring, response: { 200: { type: 'array', items: task } } } },
      async (request, reply) => {
        const { limit, status, cursor } = request.query
        const user = request.user.sub
        if (!status) return list([user, limit])
        const rows = cursor
          ? await listAfter([user, limit, status, ...cursor.split('_')])
          : await listStatus([user, limit, status])
        const last = rows.at(-1)
        if (last)
          reply.header(
            'link',
            `</api/v1/tasks?limit=${limit}&status=${status}&cursor=${last.created_at}_${last.id}>; rel="next"`,
          )
        return rows
      },
    )
    const newTask = {
      type: 'object',
      required: ['title'],
      properties: {
        title,
        description: textOrNull,
        priority: { type: 'integer' },
        tags: { type: 'array', items: text },
      },
    }
    api.post('', { schema: { body: newTask, response: { 201: task } } }, async (request, reply) => {
      const { title, description = null, priority = 0, tags = [] } = request.body
      const [row] = await create([randomUUID(), request.user.sub, title, description, priority, tags])
      return reply.code(201).send(row)
    })
    api.get('/:id', { schema: { response: { 200: task } } }, async (request, reply) => {
      const [row] = await read([request.params.id, request.user.sub])
      return row ?? missing(reply)
    })
    const patch = { type: 'object', properties: { title, status: text } }
    api.patch('/:id', { schema: { body: patch, response: { 200: task } } }, async (request, reply) => {
      const { title = null, status = null } = request.body
      const [row] = await update([request.params.id, request.user.sub, title, status])
      return row ?? missing(reply)
    })
  },
  { prefix: '/api/v1/tasks' },
)
await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' })
