import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core'
import type { OpenApiDocument } from '../src/http/openapi-document.ts'
import { makeApiToken } from './support/api-token.ts'
import { chromiumPath, launchChromium } from './support/chromium.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import type { User } from './support/harness.ts'

if (!chromiumPath) {
  process.stderr.write('\nNOT RUN: the test of the Swagger page needs Chromium, and there is none in PATH.\n')
}

describe.skipIf(!chromiumPath)('with the Swagger page, in a browser without a network', () => {
  const screenshots = join(import.meta.dir, '../build/screenshots')
  let service: Running
  let browser: Browser
  /** The account of the examples. */
  let ada: User
  beforeAll(async () => {
    mkdirSync(screenshots, { recursive: true })
    process.stderr.write('\nScreenshots of the Swagger page: build/screenshots\n')
    // The built one: the page has to come out of it.
    service = await startExecutable()
    await untilReady(service)
    ada = await service.user('ada@example.com', 'correct horse battery')
    browser = await launchChromium()
  }, 120_000)
  afterAll(async () => {
    await browser?.close()
    await service?.stop()
  })

  test('a user registers, signs in, creates a task and sees it', async () => {
    const { page, complaints } = await open(browser, service.url)
    const email = `${crypto.randomUUID()}@example.com`
    const password = 'correct horse battery'
    const title = 'Écrire à "Zoë" <b>'

    const registered = await tryOut(page, 'auth-register', { email, password })
    expect(registered.status).toBe('201')

    expect(await authorize(page, email, password)).toEqual(['username', 'password', 'auth-bearer-value'])

    const created = await tryOut(page, 'tasks-createTask', { title })
    expect(created.status).toBe('201')

    const listed = await tryOut(page, 'tasks-listTasks')
    expect(listed.status).toBe('200')
    expect(JSON.parse(listed.body)).toMatchObject([{ title, status: 'pending' }])

    // Still signed in after a reload, by the tokens: the password is not kept.
    expect(await page.evaluate(() => JSON.stringify(localStorage))).toContain('refresh_token')
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain(password)
    await page.reload()
    expect(JSON.parse((await tryOut(page, 'tasks-listTasks')).body)).toHaveLength(1)

    expect(complaints).toEqual([])
  }, 120_000)

  test('the first try of every call works as the document proposes it', async () => {
    const { token } = ada
    const { paths } = (await service.get(`${service.url}/openapi.json`)).body as OpenApiDocument
    const refused: unknown[] = []
    const tried: string[] = []
    for (const [path, operations] of Object.entries(paths)) {
      for (const [method, { operationId, parameters = [], requestBody }] of Object.entries(operations)) {
        // Those that need the id or the token of something, end what the others need, or have no end.
        if (path.includes('{') || /^(logout|refresh|delete|register|change|revoke|stream)/i.test(operationId))
          continue
        // As Swagger UI fills its fields.
        const query = parameters
          .filter(({ schema }) => schema.examples)
          .map(({ name, schema }) => `${name}=${schema.examples![0]}`)
        const [[type, media] = []] = Object.entries(requestBody?.content ?? {})
        const isForm = type?.includes('form')
        const sent = isForm
          ? { form: media!.example as Record<string, string> }
          : { json: media?.example as object }
        const { status, body } = await service.request(
          method.toUpperCase(),
          `${service.url}${path}?${query.join('&')}`,
          { token, ...(media && sent) },
        )
        tried.push(operationId)
        if (status >= 300) refused.push([operationId, status, body])
      }
    }

    expect(refused).toEqual([])
    expect(tried).toContainEqual('createTask')
    expect(tried.length).toBeGreaterThan(8)
  })

  // Loading the page is what takes long: these do with one.
  describe('opened once', () => {
    let page: Page
    let complaints: string[]
    beforeAll(async () => {
      ;({ page, complaints } = await open(browser, service.url))
    }, 120_000)
    afterEach(() => void complaints.splice(0))

    test('the statuses that every call has are one line, until it is opened', async () => {
      const block = page.locator('#operations-tasks-createTask')
      await block.locator('.opblock-summary-control').click()
      const shown = () =>
        block.locator('tr.response:visible').evaluateAll(rows => rows.map(row => row.dataset.code))
      const usual = await shown()
      const line = block.getByRole('button', { name: '413, 415, 500, 503: errors in the same shape' })
      await line.click()
      const all = await shown()
      await block.getByRole('button', { name: 'Hide 413, 415, 500, 503' }).click()

      expect(usual).toEqual(all.filter(status => !['413', '415', '500', '503'].includes(status!)))
      expect(usual).toContain('422')
      expect(all.length).toBe(usual.length + 4)
      expect(await shown()).toEqual(usual)
      await block.locator('.opblock-summary-control').click()
    }, 120_000)

    test('a form offers only what has a meaning, and login works as it stands', async () => {
      const answer = await tryOut(page, 'auth-login')

      expect(answer.status).toBe('200')
      expect(JSON.parse(answer.body)).toMatchObject({ token_type: 'bearer' })
      expect(complaints).toEqual([])
    }, 120_000)

    test('what belongs together stands together, what comes first stands first', async () => {
      expect(
        await page.locator('.opblock-tag').evaluateAll(tags => tags.map(tag => tag.dataset.tag)),
      ).toEqual(['auth', 'users', 'tasks', 'lists', 'health'])
      expect(await page.locator('.opblock').first().getAttribute('id')).toBe('operations-auth-register')
      expect(complaints).toEqual([])
    }, 120_000)

    test('Authorize shows the reason of a refusal', async () => {
      await page.getByRole('button', { name: 'Authorize' }).first().click()
      const dialog = page.locator('.dialog-ux .modal-ux')
      await dialog.getByLabel('username').fill('stranger@example.com')
      await dialog.getByLabel('password').fill('wrong password')
      await dialog.getByRole('button', { name: 'Apply given OAuth2 credentials' }).click()

      const shown = await dialog.locator('.errors').textContent()

      expect(shown).toContain('error: invalid_grant')
      expect(shown).toContain('Incorrect email or password')
      await dialog.getByRole('button', { name: 'Close', exact: true }).first().click()
    }, 120_000)

    test('a program’s API token does what its scopes say', async () => {
      const ada = await service.user()
      const { token } = await makeApiToken(service, ada)
      await service.task(ada, { title: 'hers' })
      await page.getByRole('button', { name: 'Authorize' }).first().click()
      const dialog = page.locator('.dialog-ux .modal-ux')
      const form = dialog.locator('.auth-container').filter({ hasText: 'apiTokenAuth' })
      await form.locator('input').fill(token)
      await form.getByRole('button', { name: 'Apply credentials' }).click()
      await dialog.getByRole('button', { name: 'Close', exact: true }).first().click()

      const listed = await tryOut(page, 'tasks-listTasks')
      const created = await tryOut(page, 'tasks-createTask', { title: 'x' })

      expect(listed.status).toBe('200')
      expect(JSON.parse(listed.body)).toMatchObject([{ title: 'hers' }])
      expect(created.status).toBe('403')
      expect(JSON.parse(created.body)).toMatchObject({ code: 'insufficient_scope' })
      // The browser reports the 403 itself.
      expect(complaints).toEqual([expect.stringContaining('403')])
    }, 120_000)
  })

  describe('opened once, on a telephone whose system is dark', () => {
    let page: Page
    let complaints: string[]
    beforeAll(async () => {
      ;({ page, complaints } = await open(browser, service.url, {
        colorScheme: 'dark',
        viewport: { width: 390, height: 844 },
      }))
    }, 120_000)
    afterEach(() => void complaints.splice(0))

    test('is dark when the system is, and follows it', async () => {
      const dark = await lightness(page)
      await page.emulateMedia({ colorScheme: 'light' })
      await page.locator('html:not(.dark-mode)').waitFor()
      const light = await lightness(page)

      expect(dark.background).toBeLessThan(0.2)
      expect(dark.text).toBeGreaterThan(0.6)
      expect(light.text).toBeLessThan(0.4)
      expect(complaints).toEqual([])
    }, 120_000)

    test.each(['light', 'dark'] as const)(
      'fits a telephone, with a call open (%s)',
      async colorScheme => {
        await page.emulateMedia({ colorScheme })
        await page.locator(colorScheme === 'dark' ? 'html.dark-mode' : 'html:not(.dark-mode)').waitFor()
        const keep = (name: string) =>
          page.screenshot({ path: join(screenshots, `${name}-${colorScheme}.png`) })

        await keep('top')
        const block = page.locator('#operations-tasks-createTask')
        await block.locator('.opblock-summary-control').click()
        await block.getByRole('button', { name: 'Execute' }).click()
        await block.locator('.live-responses-table').waitFor()
        expect(await scrollWidth(page)).toBe(390)
        await block.screenshot({ path: join(screenshots, `call-${colorScheme}.png`) })
        // What can be read is not cut off at the side of the screen.
        const cut = await block
          .locator('.opblock-summary-path, .opblock-summary-description, td, p, button')
          .evaluateAll(parts =>
            parts.filter(part => part.getBoundingClientRect().right > 390).map(part => part.textContent),
          )
        expect(cut).toEqual([])
        expect(complaints.filter(text => !text.includes('401'))).toEqual([])
        await block.getByRole('button', { name: 'Clear' }).click()
        await block.locator('.opblock-summary-control').click()
        await page.evaluate('scrollTo(0, 0)')
      },
      120_000,
    )

    test('the guides are a click away, and every link in them leads somewhere', async () => {
      await page.getByRole('link', { name: /^Guides/ }).click({ noWaitAfter: true })
      const address = `${service.url}/docs/guides`
      await page.goto(address)
      const guides = await page.locator('.guide li a').evaluateAll(links => links.map(link => link.href))
      expect(guides.length).toBeGreaterThan(5)

      const targets = new Set<string>()
      for (const guide of guides) {
        await page.goto(guide)
        expect(await page.locator('h1').textContent()).not.toBeEmpty()
        expect(await scrollWidth(page)).toBe(390)
        for (const href of await page
          .locator('.guide a')
          .evaluateAll(links => links.map(link => link.href))) {
          if (href.startsWith(service.url)) targets.add(href)
        }
        if (guide.endsWith('settings.md')) await page.screenshot({ path: join(screenshots, 'guide.png') })
      }
      // In this order a page is loaded once, for all places in it.
      for (const target of [...targets].sort()) {
        await page.goto(target)
        const { hash } = new URL(target)
        expect([target, await page.locator(hash || 'body').count()]).toEqual([target, 1])
      }
      expect(complaints).toEqual([])
    }, 120_000)
  })
})

/** Opens the page; `complaints` fills with whatever the browser has to say and every request to somewhere else. */
async function open(browser: Browser, url: string, options: BrowserContextOptions = {}) {
  const complaints: string[] = []
  const page = await (await browser.newContext(options)).newPage()
  page.setDefaultTimeout(20_000)
  await page.route(
    address => address.origin !== new URL(url).origin,
    route => {
      complaints.push(`asked for ${route.request().url()}`)
      return route.abort()
    },
  )
  // A breach of the content policy is an error in the console.
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', error => complaints.push(error.message))
  await page.goto(`${url}/`)
  await page.locator('.opblock').first().waitFor()
  return { page, complaints }
}

/** Signs in; returns the fields that the dialog shows. */
async function authorize(page: Page, email: string, password: string): Promise<string[]> {
  await page.getByRole('button', { name: 'Authorize' }).first().click()
  const dialog = page.locator('.dialog-ux .modal-ux')
  const fields = await visibleFields(dialog)
  await dialog.getByLabel('username').fill(email)
  await dialog.getByLabel('password').fill(password)
  await dialog.getByRole('button', { name: 'Apply given OAuth2 credentials' }).click()
  await dialog.getByRole('button', { name: 'Remove authorization' }).waitFor()
  await dialog.getByRole('button', { name: 'Close', exact: true }).first().click()
  return fields
}

/** Of the background and of the text, from 0 to 1. */
async function lightness(page: Page) {
  const of = async (element: string, property: string) => {
    const color = await page.evaluate<string>(`getComputedStyle(${element}).${property}`)
    return (
      Math.max(
        ...color
          .match(/[\d.]+/g)!
          .slice(0, 3)
          .map(Number),
      ) / 255
    )
  }
  return {
    background: await of('document.documentElement', 'backgroundColor'),
    text: await of("document.querySelector('.info p')", 'color'),
  }
}

const scrollWidth = (page: Page) => page.evaluate<number>('document.documentElement.scrollWidth')

/** Opens an operation, sends it (with this body, or as the page proposes), and reads what the page shows. */
async function tryOut(page: Page, operation: string, body?: object) {
  const block = page.locator(`#operations-${operation}`)
  await block.locator('.opblock-summary-control').click()
  if (body) await block.locator('textarea.body-param__text').fill(JSON.stringify(body))
  await block.getByRole('button', { name: 'Execute' }).click()
  const response = block.locator('.live-responses-table tr.response')
  await response.waitFor()
  const textOf = async (part: string) => ((await response.locator(part).first().textContent()) ?? '').trim()
  const shown = { status: await textOf('.response-col_status'), body: await textOf('.highlight-code code') }
  await block.locator('.opblock-summary-control').click()
  return shown
}

const visibleFields = (dialog: Locator) =>
  dialog
    .locator('input:visible, select:visible')
    .evaluateAll(fields => fields.map(field => field.dataset.name ?? field.id))
