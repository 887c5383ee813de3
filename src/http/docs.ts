import { swagger } from '@elysiajs/swagger'
import { Elysia } from 'elysia'

/** The OpenAPI document and the Swagger page. */
export const docs = () =>
  new Elysia({ name: 'docs' })
    .use(swagger({ path: '/docs', documentation: { info: { title: 'todo-api', version: '0.1.0' } } }))
    .get('/', ({ redirect }) => redirect('/docs'), { detail: { hide: true } })
