import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Browser, chromium, type Locator, type Page } from 'playwright-core'
import { makeApiToken } from './support/api-token.ts'
import { type Running, startExecutable } from './support/executable.ts'

const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome']
const executablePath = names.map(name => Bun.which(name)).find(path => path !== null)
if (!executablePath) {
  process.stderr.write('\nNOT RUN: the test of the Swagger page needs Chromium, and there is none in PATH.\n')
}

const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

describe.skipIf(!executablePath)('with the Swagger page, in a browser without a network', () => {
  let service: Running
  let browser: Browser
  beforeAll(async () => {
    // The built one: the page has to come out of it.
    service = await startExecutable()
    while ((await service.get('/health/ready')).status !== 200) await Bun.sleep(50)
    browser = await chromium.launch({ executablePath: executablePath!, args: flags })
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

    await page.getByRole('button', { name: 'Authorize' }).first().click()
    const dialog = page.locator('.dialog-ux .modal-ux')
    expect(await visibleFields(dialog)).toEqual(['username', 'password', 'auth-bearer-value'])
    await dialog.getByLabel('username').fill(email)
    await dialog.getByLabel('password').fill(password)
    await dialog.getByRole('button', { name: 'Apply given OAuth2 credentials' }).click()
    await dialog.getByRole('button', { name: 'Remove authorization' }).waitFor()
    await dialog.getByRole('button', { name: 'Close', exact: true }).first().click()

    const created = await tryOut(page, 'tasks-createTask', { title })
    expect(created.status).toBe('201')

    const listed = await tryOut(page, 'tasks-listTasks')
    expect(listed.status).toBe('200')
    expect(JSON.parse(listed.body)).toMatchObject([{ title, status: 'pending' }])

    // Still signed in after a reload.
    await page.reload()
    expect(JSON.parse((await tryOut(page, 'tasks-listTasks')).body)).toHaveLength(1)

    expect(complaints).toEqual([])
  }, 120_000)

  test('a program’s API token does what its scopes say', async () => {
    const ada = await service.user()
    const { token } = await makeApiToken(service, ada)
    await service.task(ada, { title: 'hers' })
    const { page, complaints } = await open(browser, service.url)
    await page.getByRole('button', { name: 'Authorize' }).first().click()
    const dialog = page.locator('.dialog-ux .modal-ux')
    const form = dialog.locator('.auth-container').filter({ hasText: 'apiToken' })
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

  test('Authorize shows the reason of a refusal', async () => {
    const { page } = await open(browser, service.url)
    await page.getByRole('button', { name: 'Authorize' }).first().click()
    const dialog = page.locator('.dialog-ux .modal-ux')
    await dialog.getByLabel('username').fill('stranger@example.com')
    await dialog.getByLabel('password').fill('wrong password')
    await dialog.getByRole('button', { name: 'Apply given OAuth2 credentials' }).click()

    const shown = await dialog.locator('.errors').textContent()

    expect(shown).toContain('error: invalid_grant')
    expect(shown).toContain('Incorrect email or password')
  }, 120_000)

  test('a form offers only what has a meaning, and login works as it stands', async () => {
    const { page, complaints } = await open(browser, service.url)
    const { email, password } = await service.user('ada@example.com', 'correct horse battery')
    expect([email, password]).toEqual(['ada@example.com', 'correct horse battery'])

    const answer = await tryOut(page, 'auth-login')

    expect(answer.status).toBe('200')
    expect(JSON.parse(answer.body)).toMatchObject({ token_type: 'bearer' })
    expect(complaints).toEqual([])
  }, 120_000)

  test('what belongs together stands together, what comes first stands first', async () => {
    const { page, complaints } = await open(browser, service.url)

    expect(await page.locator('.opblock-tag').evaluateAll(tags => tags.map(tag => tag.dataset.tag))).toEqual([
      'auth',
      'users',
      'tasks',
      'health',
    ])
    expect(await page.locator('.opblock').first().getAttribute('id')).toBe('operations-auth-register')
    expect(complaints).toEqual([])
  }, 120_000)
})

/** Opens the page; `complaints` fills with whatever the browser has to say and every request to somewhere else. */
async function open(browser: Browser, url: string) {
  const complaints: string[] = []
  const page = await (await browser.newContext()).newPage()
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
