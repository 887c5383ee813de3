import { Elysia } from 'elysia'
import favicon from 'swagger-ui-dist/favicon-32x32.png' with { type: 'file' }
import { version as swaggerUiVersion } from 'swagger-ui-dist/package.json'
import swaggerStyles from 'swagger-ui-dist/swagger-ui.css' with { type: 'file' }
import bundle from 'swagger-ui-dist/swagger-ui-bundle.js' with { type: 'file' }
import { AppError } from '../lib/errors.ts'
import { createDocument, type Registration } from './openapi-document.ts'

/** The Swagger page at `/docs` and the document at `/openapi.json`. Nothing is loaded from another host. */
export const docs = (registration: Registration) => {
  const app = new Elysia({ name: 'docs', detail: { hide: true } })
  // Made at the first request and kept: routes do not change at run time.
  let document: Promise<{ text: string; etag: string }> | undefined

  return app
    .get('/openapi.json', async ({ headers, status, set }) => {
      document ??= createDocument(app, registration).then(withTag)
      const { text, etag } = await document
      Object.assign(set.headers, { etag, 'cache-control': 'no-cache' })
      if (headers['if-none-match'] === etag) return status(304, undefined)
      set.headers['content-type'] = 'application/json'
      return text
    })
    .get('/docs', () => new Response(page, { headers: pageHeaders }))
    .get('/docs/assets/:version/:file', ({ params }) => {
      const { version, file } = params
      if (version !== assetsVersion || !isAsset(file)) throw new AppError('not_found')
      const { type, content } = assets[file]
      return new Response(content(), { headers: { ...assetHeaders, 'content-type': type } })
    })
    .get('/', ({ redirect }) => redirect('/docs'))
    .get('/swagger', ({ redirect }) => redirect('/docs'))
    .get('/swagger/json', ({ redirect }) => redirect('/openapi.json'))
}

function withTag(document: object) {
  const text = JSON.stringify(document)
  return { text, etag: `"${Bun.hash(text).toString(36)}"` }
}

/** Starts Swagger UI. A separate file, because the page's policy allows no inline script. */
const script = `
SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  persistAuthorization: true,
  defaultModelsExpandDepth: 0,
  // Otherwise the page sends the document's address to a validator on the internet.
  validatorUrl: null,
  // There is one server, the one that serves this page.
  plugins: [{ wrapComponents: { ServersContainer: () => () => null } }],
})
`

/** Hides what has no meaning here: OAuth 2 clients and scopes, links between operations. */
const styles = `
body { margin: 0 }
.swagger-ui .info { margin: 30px 0 }
.swagger-ui .scope-def,
.swagger-ui .auth-container .wrapper:has(> [for=password_type], > [for^=client_]),
.swagger-ui .response-col_links { display: none }
`

/** Part of every file's address, so that a browser may cache it for ever. */
const assetsVersion = Bun.hash(script + styles + swaggerUiVersion).toString(36)

/** Read from the package, or from inside the executable, when they are requested. */
const assets = {
  'swagger-ui-bundle.js': { type: 'text/javascript; charset=utf-8', content: () => Bun.file(bundle) },
  'swagger-ui.css': { type: 'text/css; charset=utf-8', content: () => Bun.file(swaggerStyles) },
  'start.js': { type: 'text/javascript; charset=utf-8', content: () => script },
  'page.css': { type: 'text/css; charset=utf-8', content: () => styles },
  'favicon.png': { type: 'image/png', content: () => Bun.file(favicon) },
}

type AssetName = keyof typeof assets
const isAsset = (file: string): file is AssetName => Object.hasOwn(assets, file)

const asset = (file: AssetName) => `/docs/assets/${assetsVersion}/${file}`

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>todo-api</title>
<link rel="icon" type="image/png" href="${asset('favicon.png')}">
<link rel="stylesheet" href="${asset('swagger-ui.css')}">
<link rel="stylesheet" href="${asset('page.css')}">
<script src="${asset('swagger-ui-bundle.js')}" defer></script>
<script src="${asset('start.js')}" defer></script>
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
</body>
</html>
`

const contentPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const pageHeaders = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': contentPolicy,
  'cache-control': 'no-cache',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

const assetHeaders = {
  'cache-control': 'public, max-age=31536000, immutable',
  'x-content-type-options': 'nosniff',
}
