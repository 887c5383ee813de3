// The usual draft: Elysia, @elysiajs/jwt and Drizzle as their introductions show them. It verifies the token and looks the
// session up at each request; queries are built and planned each time, timestamps are Dates.
import { jwt } from '@elysiajs/jwt'
import { and, desc, eq, gt, isNull, sql } from 'drizzle-orm'
import { bigint, pgTable, smallint, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import { drizzle } from 'drizzle-orm/postgres-js'
import { Elysia, t } from 'elysia'
import postgres from 'postgres'

const moment = name => timestamp(name, { withTimezone: true })
const sessions = pgTable('sessions', {
  id: uuid('id').primaryKey(),
  userId: uuid('user_id'),
  expiresAt: moment('expires_at'),
})
const userVersions = pgTable('user_versions', {
  userId: uuid('user_id').primaryKey(),
  lastVersion: bigint('last_version', { mode: 'number' }),
})
const tasks = pgTable('tasks', {
  id: uuid('id').primaryKey(),
  user_id: uuid('user_id').notNull(),
  title: text('title').notNull(),
  description: text('description'),
  status: text('status').notNull().default('pending'),
  priority: smallint('priority').notNull().default(0),
  due_at: moment('due_at'),
  tags: text('tags').array().notNull().default([]),
  list_id: uuid('list_id'),
  parent_id: uuid('parent_id'),
  position: text('position').notNull().default(''),
  completed_at: moment('completed_at'),
  created_at: moment('created_at').notNull().defaultNow(),
  updated_at: moment('updated_at').notNull().defaultNow(),
  version: bigint('version', { mode: 'number' }).notNull(),
})
const deletedAt = sql`deleted_at`

const db = drizzle(postgres(process.env.DATABASE_URL))

const nextVersion = (tx, user) =>
  tx
    .update(userVersions)
    .set({ lastVersion: sql`last_version + 1` })
    .where(eq(userVersions.userId, user))
    .returning({ lastVersion: userVersions.lastVersion })

new Elysia()
  .get('/health', () => ({ status: 'healthy' }))
  .use(jwt({ name: 'jwt', secret: process.env.SECRET_KEY }))
  .derive(async ({ headers, jwt, status }) => {
    const claims = await jwt.verify(headers.authorization?.slice(7))
    if (!claims) return status(401)
    const [session] = await db
      .select({ id: sessions.id })
      .from(sessions)
      .where(
        and(eq(sessions.id, claims.sid), eq(sessions.userId, claims.sub), gt(sessions.expiresAt, new Date())),
      )
    if (!session) return status(401)
    return { user: claims.sub }
  })
  .get(
    '/api/v1/tasks',
    async ({ user, query, set }) => {
      const [at, id] = query.cursor?.split('_') ?? []
      const rows = await db
        .select()
        .from(tasks)
        .where(
          and(
            eq(tasks.user_id, user),
            isNull(deletedAt),
            query.status ? eq(tasks.status, query.status) : undefined,
            at ? sql`(created_at, id) < (${at}, ${id})` : undefined,
          ),
        )
        .orderBy(desc(tasks.created_at), desc(tasks.id))
        .limit(query.limit ?? 50)
      const last = rows.at(-1)
      if (last && query.status) {
        const next = new URLSearchParams({ ...query, cursor: `${last.created_at.toISOString()}_${last.id}` })
        set.headers.link = `</api/v1/tasks?${next}>; rel="next"`
      }
      return rows
    },
    {
      query: t.Object({
        limit: t.Optional(t.Integer({ minimum: 1, maximum: 200 })),
        status: t.Optional(t.String()),
        cursor: t.Optional(t.String()),
      }),
    },
  )
  .post(
    '/api/v1/tasks',
    ({ user, body, status }) =>
      db.transaction(async tx => {
        const [next] = await nextVersion(tx, user)
        const [task] = await tx
          .insert(tasks)
          .values({ id: Bun.randomUUIDv7(), user_id: user, ...body, version: next.lastVersion })
          .returning()
        return status(201, task)
      }),
    {
      body: t.Object({
        title: t.String({ minLength: 1, maxLength: 200 }),
        description: t.Optional(t.Nullable(t.String({ maxLength: 2000 }))),
        priority: t.Optional(t.Integer({ minimum: 0, maximum: 4 })),
        tags: t.Optional(t.Array(t.String())),
      }),
    },
  )
  .get('/api/v1/tasks/:id', async ({ user, params, status }) => {
    const [task] = await db
      .select()
      .from(tasks)
      .where(and(eq(tasks.id, params.id), eq(tasks.user_id, user), isNull(deletedAt)))
    return task ?? status(404, { detail: 'Task not found' })
  })
  .patch(
    '/api/v1/tasks/:id',
    ({ user, params, body, status }) =>
      db.transaction(async tx => {
        const [next] = await nextVersion(tx, user)
        const [task] = await tx
          .update(tasks)
          .set({ ...body, updated_at: new Date(), version: next.lastVersion })
          .where(and(eq(tasks.id, params.id), eq(tasks.user_id, user), isNull(deletedAt)))
          .returning()
        return task ?? status(404, { detail: 'Task not found' })
      }),
    {
      body: t.Object({
        title: t.Optional(t.String({ minLength: 1, maxLength: 200 })),
        status: t.Optional(t.String()),
      }),
    },
  )
  .listen({ port: Number(process.env.PORT), hostname: '127.0.0.1' })
