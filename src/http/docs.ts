import { Elysia } from 'elysia'
import favicon from 'swagger-ui-dist/favicon-32x32.png' with { type: 'file' }
import { version as swaggerUiVersion } from 'swagger-ui-dist/package.json'
import swaggerStyles from 'swagger-ui-dist/swagger-ui.css' with { type: 'file' }
import bundle from 'swagger-ui-dist/swagger-ui-bundle.js' with { type: 'file' }
import { AppError } from '../lib/errors.ts'
import { isKnown } from './entity-tag.ts'
import { guide, guideList } from './guides.ts'
import type { Registration } from './openapi-document.ts'
import type { Routes } from './route-table.ts'

/**
 * The Swagger page at `/docs`, the guides below it, and the document at `/openapi.json`. Nothing is loaded from another
 * host.
 */
export const docs = (registration: Registration, routes: () => Routes) => {
  // Made at the first request, with what only it needs, and kept unless that fails: routes do not change at run time.
  let document: Promise<{ text: string; tag: string }> | undefined
  const makeDocument = async () => {
    const { createDocument } = await import('./openapi-document.ts')
    const text = JSON.stringify(createDocument(routes(), registration))
    return { text, tag: Bun.hash(text).toString(36) }
  }

  return new Elysia({ name: 'docs', detail: { hide: true } })
    .get('/openapi.json', async ({ headers, status, set }) => {
      document ??= makeDocument().catch(error => {
        document = undefined
        throw error
      })
      const { text, tag } = await document
      Object.assign(set.headers, { etag: `"${tag}"`, 'cache-control': 'no-cache' })
      if (isKnown(headers['if-none-match'], tag)) return status(304, undefined)
      set.headers['content-type'] = 'application/json'
      return text
    })
    .get('/docs', () => html(swaggerPage))
    .get('/docs/guides', () => html(guidePage('Guides', guideList())))
    .get('/docs/guides/:name', ({ params }) => {
      const { title, html: content } = guide(params.name)
      return html(guidePage(title, content))
    })
    .get('/docs/assets/:version/:file', ({ params: { version, file } }) => {
      const asset = version === assetsVersion ? assets.get(file) : undefined
      if (!asset) throw new AppError('not_found')
      return new Response(asset.content(), { headers: { ...assetHeaders, 'content-type': asset.type } })
    })
    .get('/', ({ redirect }) => redirect('/docs'))
    .get('/swagger', ({ redirect }) => redirect('/docs'))
    .get('/swagger/json', ({ redirect }) => redirect('/openapi.json'))
}

const html = (page: string) => new Response(page, { headers: pageHeaders })

/** Nearly every operation has them, in the same shape: the page shows one line in the place of four rows. */
const rareStatuses = ['413', '415', '500', '503']

/** The row of a call that was made has no `data-code`: it is always shown. */
const rareRows = rareStatuses.map(status => `.swagger-ui .folded .response[data-code="${status}"]`).join(', ')

/** Starts Swagger UI. A separate file, because the page's policy allows no inline script. */
const script = `
const dark = matchMedia('(prefers-color-scheme: dark)')
const followSystem = () => document.documentElement.classList.toggle('dark-mode', dark.matches)
followSystem()
dark.addEventListener('change', followSystem)

const rare = ${JSON.stringify(rareStatuses)}
const foldRare = (Responses, { React }) => props => {
  const [isOpen, setOpen] = React.useState(false)
  const present = rare.filter(status => props.responses.has(status)).join(', ')
  const label = isOpen ? 'Hide ' + present : present + ': errors in the same shape'
  const fold = { className: 'fold', 'aria-expanded': isOpen, onClick: () => setOpen(!isOpen) }
  return React.createElement('div', { className: isOpen ? '' : 'folded' },
    React.createElement(Responses, props), React.createElement('button', fold, label))
}

// Swagger UI stores the whole form of a sign-in, so that it lasts over a reload. The tokens are enough.
const withoutPassword = authorize => ({ auth, ...payload }) => authorize({ ...payload, auth: { ...auth, password: '' } })

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
  plugins: [{
    wrapComponents: { ServersContainer: () => () => null, responses: foldRare },
    statePlugins: { auth: { wrapActions: { authorizeOauth2: withoutPassword } } },
  }],
})
`

/** Hides what has no meaning here (OAuth 2 clients and scopes, links between operations), and fits a telephone. */
const styles = `
:root { color-scheme: light dark }
body { margin: 0 }
.swagger-ui .info { margin: 30px 0 }
.swagger-ui .scope-def,
.swagger-ui .auth-container .wrapper:has(> [for=password_type], > [for^=client_]),
.swagger-ui .response-col_links { display: none }

${rareRows} { display: none }
.swagger-ui .fold { margin: 0 20px 20px; padding: 0; border: 0; background: none; color: inherit; font: 14px sans-serif; text-align: left; text-decoration: underline; cursor: pointer }
/* Swagger UI leaves them black on black. */
.dark-mode .swagger-ui table.headers td { color: inherit }

.guide { max-width: 48rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 system-ui, sans-serif }
.guide pre, .guide table { display: block; overflow-x: auto }
.guide pre { padding: .75rem; background: #8882; border-radius: 4px }
.guide code { font-size: .875em }
.guide p code, .guide td code { overflow-wrap: anywhere }
.guide table { border-collapse: collapse }
.guide th, .guide td { padding: .25rem .5rem; border: 1px solid #8886; text-align: left; vertical-align: top }
@media (max-width: 40rem) {
  .swagger-ui table.headers td { overflow-wrap: anywhere }
  .guide thead { display: none }
  .guide tr, .guide td { display: block; border: 0 }
  .guide tr { padding: .5rem 0; border-bottom: 1px solid #8886 }
}
`

/** Part of every file's address, so that a browser may cache it for ever. */
const assetsVersion = Bun.hash(script + styles + swaggerUiVersion).toString(36)

/** Read from the package, or from inside the executable, when they are requested. */
const assets = new Map<string, { type: string; content: () => Blob | string }>([
  ['swagger-ui-bundle.js', { type: 'text/javascript; charset=utf-8', content: () => Bun.file(bundle) }],
  ['swagger-ui.css', { type: 'text/css; charset=utf-8', content: () => Bun.file(swaggerStyles) }],
  ['start.js', { type: 'text/javascript; charset=utf-8', content: () => script }],
  ['page.css', { type: 'text/css; charset=utf-8', content: () => styles }],
  ['favicon.png', { type: 'image/png', content: () => Bun.file(favicon) }],
])

const asset = (file: string) => `/docs/assets/${assetsVersion}/${file}`

const pageOf = (title: string, head: string, body: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${Bun.escapeHTML(title)}</title>
<link rel="icon" type="image/png" href="${asset('favicon.png')}">
${head}
<link rel="stylesheet" href="${asset('page.css')}">
</head>
<body>
${body}
</body>
</html>
`

const swaggerPage = pageOf(
  'todo-api',
  `<link rel="stylesheet" href="${asset('swagger-ui.css')}">
<script src="${asset('swagger-ui-bundle.js')}" defer></script>
<script src="${asset('start.js')}" defer></script>`,
  `<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>`,
)

const guidePage = (title: string, content: string) =>
  pageOf(
    `${title} – todo-api`,
    '',
    `<main class="guide">
<p><a href="/docs">API</a> · <a href="/docs/guides">Guides</a></p>
${content}
</main>`,
  )

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
}

const assetHeaders = { 'cache-control': 'public, max-age=31536000, immutable' }
