import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { chromiumPath, launchChromium } from './support/chromium.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import type { User } from './support/harness.ts'
import { until } from './support/until.ts'

const example = join(import.meta.dir, '../examples/web')

if (!chromiumPath) {
  process.stderr.write('\nNOT RUN: the test of examples/web needs Chromium, and there is none in PATH.\n')
}

describe.skipIf(!chromiumPath)('the front end of examples/web, at another origin than the service', () => {
  let service: Running
  let site: Bun.Server<undefined>
  let browser: Browser
  beforeAll(async () => {
    site = serveBuilt(() => service.url)
    service = await startExecutable({ FRONTEND_URL: site.url.origin, ENVIRONMENT: 'test', BCRYPT_COST: '4' })
    await untilReady(service)
    for (const script of ['generate', 'check', 'build']) await runScript(script, { API_URL: service.url })
    browser = await launchChromium()
  }, 120_000)
  afterAll(async () => {
    await browser?.close()
    await service?.stop()
    await site?.stop(true)
  })

  async function open(options: Parameters<Browser['newContext']>[0] = {}) {
    const page = await (await browser.newContext(options)).newPage()
    page.setDefaultTimeout(20_000)
    await page.goto(site.url.href)
    return page
  }

  /** Another tab of the same browser, where the user is signed in. */
  async function openTab(page: Page) {
    const tab = await page.context().newPage()
    tab.setDefaultTimeout(20_000)
    await tab.goto(site.url.href)
    await tab.getByRole('button', { name: 'Sign out' }).waitFor()
    return tab
  }

  async function signIn(page: Page, { email, password }: User) {
    await page.getByLabel('E-mail').fill(email)
    await page.getByLabel('Password').fill(password)
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('button', { name: 'Sign out' }).waitFor()
  }

  /** Resolves when the page has asked the change feed, which it does after it has sent its changes. */
  const synced = (page: Page) =>
    page.waitForResponse(response => response.url().includes('/tasks/changes') && response.ok())
  const add = async (page: Page, title: string) => {
    await page.getByLabel('New task').fill(title)
    await page.getByRole('button', { name: 'Add' }).click()
  }
  const edit = async (page: Page, title: string, label: string, value: string) => {
    await page.getByRole('button', { name: `Edit ${title}` }).click()
    await page.getByLabel(label, { exact: true }).fill(value)
    await page.getByRole('button', { name: 'Save' }).click()
  }
  /** Waits until the user's only task at the service is as said. */
  const arrived = (user: User, wanted: Record<string, unknown>) =>
    until(async () => {
      const [task] = (await service.get('/tasks', user)).body
      return task && Object.entries(wanted).every(([name, value]) => task[name] === value)
    })
  /** Makes a token one that the service refuses. */
  const spoil = (page: Page, name: string) =>
    page.evaluate(name => {
      const session = JSON.parse(localStorage.session)
      session.tokens[name] = 'spoilt'
      localStorage.session = JSON.stringify(session)
    }, name)
  const titles = (page: Page) => page.getByRole('listitem').locator('label').allTextContents()
  const item = (page: Page, title: string) => page.getByRole('listitem').filter({ hasText: title })

  test('a new user reads why a password is refused, creates an account, and signs out', async () => {
    const page = await open()
    await page.getByLabel('E-mail').fill('grace@example.com')
    await page.getByLabel('Password').fill('wrong password')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('alert').filter({ hasText: 'Incorrect email or password' }).waitFor()

    await page.getByRole('button', { name: 'Create an account' }).click()
    await page.getByText('grace@example.com').waitFor()
    await page.getByText('No tasks.').waitFor()

    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Password').waitFor()
  }, 60_000)

  test('a list comes in pages and is filtered by status and words', async () => {
    const user = await service.user()
    for (let i = 1; i <= 25; i++) await service.task(user, { title: `Task ${i}` })
    await service.task(user, { title: 'Paint the fence', status: 'completed' })
    const page = await open()
    await signIn(page, user)

    await item(page, 'Paint the fence').waitFor()
    expect(await titles(page)).toHaveLength(20)
    await page.getByRole('button', { name: 'Show more' }).click()
    await item(page, 'Task 1').first().waitFor()
    await page.getByRole('button', { name: 'Show more' }).waitFor({ state: 'detached' })
    expect(await titles(page)).toHaveLength(26)

    await page.getByLabel('Search').fill('fen pai')
    await item(page, 'Task 25').waitFor({ state: 'detached' })
    expect(await titles(page)).toEqual(['Paint the fence'])

    await page.getByLabel('Status').selectOption('To do')
    await page.getByText('No tasks.').waitFor()
  }, 60_000)

  test('a list shows its own tasks, and new ones go into it', async () => {
    const user = await service.user()
    const { body: list } = await service.post('/lists', { token: user.token, json: { name: 'Groceries' } })
    await service.task(user, { title: 'Buy milk', list_id: list.id })
    await service.task(user, { title: 'Paint the fence' })
    const page = await open()
    await signIn(page, user)
    await item(page, 'Paint the fence').waitFor()

    await page.getByLabel('List', { exact: true }).selectOption('Groceries')
    await item(page, 'Paint the fence').waitFor({ state: 'detached' })
    await page.getByLabel('New task').fill('Buy bread')
    await page.getByRole('button', { name: 'Add' }).click()

    await arrived(user, { title: 'Buy bread', list_id: list.id })
    expect((await titles(page)).sort()).toEqual(['Buy bread', 'Buy milk'])
  }, 60_000)

  test('a task is added, edited, completed and deleted, and each change reaches the service', async () => {
    const user = await service.user()
    const page = await open({ timezoneId: 'Europe/Berlin' })
    await signIn(page, user)

    await page.getByLabel('New task').fill('Buy milk')
    await page.getByRole('button', { name: 'Add' }).click()
    await edit(page, 'Buy milk', 'Title', 'Buy oat milk')
    await edit(page, 'Buy oat milk', 'Due', '2099-01-31T18:00')
    // `check` would fail if the list is drawn just then, as it was before: the answer to the edit arrives.
    const box = item(page, 'Buy oat milk').getByRole('checkbox')
    await box.click()
    await arrived(user, { title: 'Buy oat milk', status: 'completed', due_at: '2099-01-31T17:00:00.000000Z' })
    await until(() => box.isChecked())

    await page.getByRole('button', { name: 'Edit Buy oat milk' }).click()
    await page.getByRole('button', { name: 'Delete' }).click()
    await page.getByText('No tasks.').waitFor()
    await until(async () => (await service.get('/tasks/trash', user)).body.length === 1)
  }, 60_000)

  test('changes of one user in quick succession are no conflict, also from a form that was open before', async () => {
    const user = await service.user()
    const task = await service.task(user, { title: 'Quick' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])

    await page.getByRole('button', { name: 'Edit Quick' }).click()
    // Behind the open form, as a slow answer to an earlier click would come.
    await page.evaluate(`document.querySelector('.tasks input').click()`)
    await arrived(user, { status: 'completed' })
    await page.getByLabel('Title').fill('Quick and done')
    await page.getByRole('button', { name: 'Save' }).click()

    await arrived(user, { title: 'Quick and done', status: 'completed', id: task.id })
    expect(await page.getByText('Changed elsewhere').count()).toBe(0)
  }, 60_000)

  test('a change that was sent stays on the screen while the next list is under way', async () => {
    const user = await service.user()
    await service.task(user, { title: 'Slow list' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])
    const box = item(page, 'Slow list').getByRole('checkbox')
    await box.waitFor()
    const { promise, resolve } = Promise.withResolvers<void>()
    await page.route('**/api/v1/tasks?*', async route => {
      await promise
      await route.continue()
    })

    await Promise.all([synced(page), box.check()])
    await page.evaluate('new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))')
    expect(await box.isChecked()).toBe(true)
    resolve()
    await page.getByText('1 waiting to be sent.').waitFor({ state: 'detached' })
    expect(await box.isChecked()).toBe(true)
  }, 60_000)

  test('a change on another device appears at once, and what a user types meanwhile stays', async () => {
    const user = await service.user()
    await service.task(user, { title: 'Read', priority: 1 })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])

    await page.getByRole('button', { name: 'Edit Read' }).click()
    await page.getByLabel('Title').fill('Read a book')
    await page.getByLabel('Priority').selectOption('High')
    await service.task(user, { title: 'Made elsewhere' })
    await item(page, 'Made elsewhere').waitFor()
    await page.getByRole('button', { name: 'Save' }).click()

    await item(page, 'Read a book').getByText('High').waitFor()
  }, 60_000)

  test('calls that wait for a new token are answered after one refresh; a refused one signs out', async () => {
    const user = await service.user()
    await service.task(user, { title: 'Still here' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])
    const refreshes: number[] = []
    const refused = new Set<string>()
    page.on('response', response => {
      if (response.url().endsWith('/auth/refresh')) refreshes.push(response.status())
      else if (response.status() === 401) refused.add(new URL(response.url()).pathname)
    })
    // The new token comes when every call that the page begins with has been refused.
    await page.route('**/auth/refresh', async route => {
      await until(() => refused.size === 3)
      await route.continue()
    })

    await spoil(page, 'access_token')
    await page.reload()
    await item(page, 'Still here').waitFor()
    expect([...refused].sort()).toEqual(['/api/v1/tasks', '/api/v1/tasks/changes', '/api/v1/tasks/events'])
    expect(refreshes).toEqual([200])

    await spoil(page, 'access_token')
    await spoil(page, 'refresh_token')
    await page.reload()
    await page.getByLabel('Password').waitFor()
    expect(refreshes).toEqual([200, 401])
  }, 60_000)

  test('without a network the copy is shown, changes wait, and they are sent when it is back', async () => {
    const user = await service.user()
    for (const title of ['Rake leaves', 'Wash the car']) await service.task(user, { title })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])
    await item(page, 'Rake leaves').waitFor()

    await page.context().setOffline(true)
    await page.getByText('Offline.').waitFor()
    await page.getByLabel('New task').fill('Made offline')
    await page.getByRole('button', { name: 'Add' }).click()
    await edit(page, 'Made offline', 'Description', 'and edited')
    await page.getByText('2 waiting to be sent.').waitFor()
    await page.getByLabel('Search').fill('car')
    await item(page, 'Rake leaves').waitFor({ state: 'detached' })
    expect(await titles(page)).toEqual(['Wash the car'])
    await page.getByLabel('Search').fill('')
    const { body: tasks } = await service.get('/tasks?q=rake', user)
    await service.delete(`/tasks/${tasks[0].id}`, user)

    await page.context().setOffline(false)
    await item(page, 'Rake leaves').waitFor({ state: 'detached' })
    await page.getByText('waiting to be sent').waitFor({ state: 'detached' })
    expect(await titles(page)).toEqual(['Made offline', 'Wash the car'])
    const { body } = await service.get('/tasks?q=made', user)
    expect(body).toMatchObject([{ title: 'Made offline', description: 'and edited' }])
  }, 60_000)

  test.each([
    ['Keep mine', 'Paint it blue'],
    ['Take theirs', 'Paint it red'],
  ])(
    'when a task has changed elsewhere, the user sees both and decides: %s',
    async (choice, title) => {
      const user = await service.user()
      const task = await service.task(user, { title: 'Paint it' })
      const page = await open()
      await Promise.all([synced(page), signIn(page, user)])
      await item(page, 'Paint it').waitFor()

      await page.context().setOffline(true)
      await page.getByText('Offline.').waitFor()
      await edit(page, 'Paint it', 'Title', 'Paint it blue')
      await service.patch(`/tasks/${task.id}`, { ...user, json: { title: 'Paint it red', priority: 4 } })
      await page.context().setOffline(false)

      await page.getByText('Changed elsewhere').click()
      const cells = page.getByRole('dialog').getByRole('cell')
      expect(await cells.allTextContents()).toEqual(['Paint it blue', 'Paint it red'])
      await page.getByRole('button', { name: choice }).click()

      await page.getByText('waiting to be sent').waitFor({ state: 'detached' })
      await item(page, title).waitFor()
      await arrived(user, { title, priority: 4 })
    },
    60_000,
  )

  test('a task that the user has edited and then deleted is shown when it has changed elsewhere', async () => {
    const user = await service.user()
    const task = await service.task(user, { title: 'Paint it' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])
    await item(page, 'Paint it').waitFor()

    await page.context().setOffline(true)
    await page.getByText('Offline.').waitFor()
    await edit(page, 'Paint it', 'Title', 'Paint it blue')
    await page.getByRole('button', { name: 'Edit Paint it blue' }).click()
    await page.getByRole('button', { name: 'Delete' }).click()
    await page.getByText('2 waiting to be sent.').waitFor()
    await service.patch(`/tasks/${task.id}`, { ...user, json: { priority: 4 } })
    await page.context().setOffline(false)

    await page.getByText('Changed elsewhere').click()
    await page.getByText('You have deleted it.').waitFor()
    await page.getByRole('button', { name: 'Keep mine' }).click()
    await page.getByText('waiting to be sent').waitFor({ state: 'detached' })
    expect((await service.get('/tasks', user)).body).toEqual([])
  }, 60_000)

  test('a change whose answer was lost is sent again, and is no conflict with itself', async () => {
    const user = await service.user()
    await service.task(user, { title: 'Sent twice' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, user)])
    const sent: number[] = []
    await page.route('**/api/v1/tasks/*', async route => {
      if (route.request().method() !== 'PATCH') return route.fallback()
      const response = await route.fetch()
      sent.push(response.status())
      return sent.length === 1 ? route.abort() : route.fulfill({ response })
    })

    await edit(page, 'Sent twice', 'Due', '2099-01-31T18:00')
    await page.getByText('1 waiting to be sent.').waitFor()
    await page.evaluate(`dispatchEvent(new Event('online'))`)
    await page.getByText('waiting to be sent').waitFor({ state: 'detached' })

    expect(sent).toEqual([200, 412])
    expect(await page.getByText('Changed elsewhere').count()).toBe(0)
  }, 60_000)

  test('eight tabs have one stream; each sends its changes, and shows those of the others', async () => {
    const user = await service.user()
    const first = await open()
    let streams = 0
    first.context().on('request', request => {
      if (request.url().endsWith('/tasks/events')) streams++
    })
    await Promise.all([synced(first), signIn(first, user)])
    const tabs = [first]
    while (tabs.length < 8) tabs.push(await openTab(first))
    expect(streams).toBe(1)

    await add(tabs.at(-1)!, 'Made in the last tab')
    await arrived(user, { title: 'Made in the last tab' })
    for (const tab of tabs) await item(tab, 'Made in the last tab').waitFor()

    // Without the first tab another one listens: the change is here sooner than by the next poll.
    await first.close()
    await until(() => streams === 2)
    await service.task(user, { title: 'Made elsewhere' })
    for (const tab of tabs.slice(1)) await item(tab, 'Made elsewhere').waitFor({ timeout: 15_000 })
  }, 120_000)

  test('what one user has made is never sent or shown as that of the next one', async () => {
    const [ada, grace] = [await service.user(), await service.user()]
    const page = await open()
    await Promise.all([synced(page), signIn(page, ada)])
    const other = await openTab(page)
    // A tab behind another one draws once a second, and a click waits for that.
    await page.bringToFront()
    await page.context().setOffline(true)
    await page.getByText('Offline.').waitFor()
    for (let i = 1; i <= 3; i++) await add(page, `Secret of Ada ${i}`)
    await page.getByText('3 waiting to be sent.').waitFor()

    // The first change is on its way until the next user has signed in and has seen the list.
    const { promise, resolve } = Promise.withResolvers<void>()
    let sent = 0
    await page.context().route('**/api/v1/tasks', async route => {
      if (route.request().method() === 'POST' && ++sent === 1) await promise
      await route.continue()
    })
    await page.context().setOffline(false)
    await until(() => sent === 1)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await other.getByLabel('Password').waitFor()
    await signIn(page, grace)
    await add(page, 'Of Grace')
    await arrived(grace, { title: 'Of Grace' })
    resolve()
    await Promise.all([synced(other), other.evaluate(`dispatchEvent(new Event('focus'))`)])

    expect((await service.get('/tasks', grace)).body).toMatchObject([{ title: 'Of Grace' }])
    expect(await titles(page)).toEqual(['Of Grace'])
    expect(await titles(other)).toEqual(['Of Grace'])
    const databases = await page.evaluate('indexedDB.databases()')
    expect(databases).toEqual([{ name: expect.any(String), version: 1 }])
  }, 60_000)

  test('an answer to a refresh that comes after the sign-out changes nothing for the next user', async () => {
    const [ada, grace] = [await service.user(), await service.user()]
    await service.task(grace, { title: 'Of Grace' })
    const page = await open()
    await Promise.all([synced(page), signIn(page, ada)])
    const { promise, resolve } = Promise.withResolvers<void>()
    await page.route('**/auth/refresh', async route => {
      const response = await route.fetch()
      await promise
      await route.fulfill({ response })
    })
    const refreshing = page.waitForRequest('**/auth/refresh')
    await spoil(page, 'access_token')
    await page.evaluate(`dispatchEvent(new Event('focus'))`)
    await refreshing

    await page.getByRole('button', { name: 'Sign out' }).click()
    await signIn(page, grace)
    await Promise.all([page.waitForResponse('**/auth/refresh'), resolve()])
    await page.reload()
    await item(page, 'Of Grace').waitFor()
    expect(await page.getByText(grace.email).count()).toBe(1)
  }, 60_000)

  test('a copy is that of a user, not of an e-mail address: another user may have it later', async () => {
    const ada = await service.user()
    const page = await open()
    await Promise.all([synced(page), signIn(page, ada)])
    await page.context().setOffline(true)
    await page.getByText('Offline.').waitFor()
    await add(page, 'Secret of Ada')
    await page.getByText('1 waiting to be sent.').waitFor()
    // Her session ends elsewhere, and so does her use of the address.
    await service.delete('/users/me', { token: ada.token, json: { password: ada.password } })
    const next = await service.user(ada.email)
    await page.context().setOffline(false)

    await page.getByLabel('Password').waitFor()
    await Promise.all([synced(page), signIn(page, next)])
    await page.getByText('No tasks.').waitFor()
    expect((await service.get('/tasks', next)).body).toEqual([])
  }, 60_000)

  test('a call that is never answered ends after a minute, and so does its hold on the other tabs', async () => {
    const user = await service.user()
    const page = await open()
    await page.context().addInitScript(`{
      const { timeout } = AbortSignal
      AbortSignal.timeout = milliseconds => timeout(milliseconds / 30)
    }`)
    await page.reload()
    await Promise.all([synced(page), signIn(page, user)])
    const other = await openTab(page)
    const asked = page.waitForRequest('**/tasks/changes*')
    await page.route('**/tasks/changes*', () => {}, { times: 1 })
    await page.evaluate(`dispatchEvent(new Event('focus'))`)
    await asked

    await add(other, 'Not held up')
    await arrived(user, { title: 'Not held up' })
  }, 60_000)

  test('a stream that sends nothing for 30 s, not even a ping, is opened again', async () => {
    const user = await service.user()
    const page = await open()
    await page.clock.install()
    await page.reload()
    let streams = 0
    await page.route('**/tasks/events', () => void streams++)
    await Promise.all([synced(page), signIn(page, user)])
    await until(() => streams === 1)

    await page.clock.fastForward(29_000)
    expect(streams).toBe(1)
    await page.clock.fastForward(2_000)
    await page.clock.fastForward(5_000)
    await until(() => streams === 2)
  }, 60_000)

  test('fits a screen of 390 pixels, and is dark when the system is', async () => {
    const user = await service.user()
    await service.task(user, { title: 'x'.repeat(200), due_at: '2099-01-31T18:00:00Z', priority: 4 })
    const page = await open({ viewport: { width: 390, height: 844 }, colorScheme: 'dark' })
    await signIn(page, user)
    await page.getByRole('listitem').waitFor()
    const widthOf = () => page.evaluate('document.documentElement.scrollWidth')
    const background = () => page.evaluate('getComputedStyle(document.documentElement).backgroundColor')

    expect(await widthOf()).toBe(390)
    expect(await background()).toBe('rgb(22, 22, 26)')
    await page.getByRole('button', { name: /Edit/ }).click()
    expect(await widthOf()).toBe(390)
    await page.emulateMedia({ colorScheme: 'light' })
    expect(await background()).toBe('rgb(246, 246, 248)')
  }, 60_000)
})

describe.skipIf(!chromiumPath)('the collection of examples/rxdb, in several tabs', () => {
  const folder = join(import.meta.dir, '../examples/rxdb')
  let service: Running
  let site: Bun.Server<undefined>
  let browser: Browser
  beforeAll(async () => {
    const page = join(folder, 'page.ts')
    const { outputs } = await Bun.build({ entrypoints: [page], files: { [page]: rxdbPage } })
    const script = await outputs[0]!.text()
    site = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: () =>
        new Response(`<script type="module">${script.replaceAll('</script', '<\\/script')}</script>`, {
          headers: { 'content-type': 'text/html; charset=utf-8' },
        }),
    })
    service = await startExecutable({ FRONTEND_URL: site.url.origin, ENVIRONMENT: 'test', BCRYPT_COST: '4' })
    await untilReady(service)
    browser = await launchChromium()
  }, 60_000)
  afterAll(async () => {
    await browser?.close()
    await service?.stop()
    await site?.stop(true)
  })

  test('one of them has a stream and replicates, also what the others do', async () => {
    const user = await service.user()
    const context = await browser.newContext()
    let streams = 0
    context.on('request', request => {
      if (request.url().endsWith('/tasks/events')) streams++
    })
    const { id, token } = user
    const address = `${site.url.href}#${new URLSearchParams({ url: service.url, id, token })}`
    const tabs: Page[] = []
    while (tabs.length < 8) {
      const tab = await context.newPage()
      await tab.goto(address)
      await tab.waitForFunction('window.tasks')
      tabs.push(tab)
    }
    await service.task(user, { title: 'Made elsewhere' })
    const titles = (tab: Page) => tab.evaluate('tasks.find().exec().then(all => all.map(task => task.title))')
    for (const tab of tabs) await until(async () => Bun.deepEquals(await titles(tab), ['Made elsewhere']))

    await tabs.at(-1)!.evaluate(`tasks.insert({
      id: crypto.randomUUID(), version: 0, title: 'Made in the last tab',
      description: null, status: 'pending', priority: 0, due_at: null,
    }).then(() => {})`)
    await until(async () => (await service.get('/tasks', user)).body.length === 2)
    expect(streams).toBe(1)

    // At the sign-out nothing stays: a tab that cannot read the service has no tasks.
    const tabAfterwards = async () => {
      const tab = await context.newPage()
      await tab.goto(
        `${site.url.href}?afterwards#${new URLSearchParams({ url: service.url, id, token: 'none' })}`,
      )
      await tab.waitForFunction('window.tasks')
      return await titles(tab)
    }
    expect(await tabAfterwards()).toHaveLength(2)
    for (const tab of context.pages().slice(1)) await tab.close()
    await tabs[0]!.evaluate('database.remove().then(() => {})')
    expect(await tabAfterwards()).toEqual([])
  }, 120_000)
})

/** The lines of examples/rxdb/README.md, as a page that is called with address and token. */
const rxdbPage = `
  import createClient from 'openapi-fetch'
  import { createRxDatabase } from 'rxdb'
  import { getRxStorageDexie } from 'rxdb/plugins/storage-dexie'
  import { replicateTasks } from './src/replicate.ts'
  import { conflictHandler, taskSchema } from './src/task.ts'

  const { url, token, ...user } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)))
  const api = createClient({ baseUrl: url, headers: { authorization: 'Bearer ' + token } })
  const database = await createRxDatabase({ name: \`todo of \${user.id}\`, storage: getRxStorageDexie() })
  const { tasks } = await database.addCollections({ tasks: { schema: taskSchema, conflictHandler } })
  replicateTasks(tasks, api).error$.subscribe(console.error)
  Object.assign(window, { database, tasks })
`

async function runScript(name: string, env: Record<string, string>) {
  const child = Bun.spawn([process.execPath, 'run', name], {
    cwd: example,
    env: { ...process.env, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const output = await Promise.all([child.stdout.text(), child.stderr.text()])
  if ((await child.exited) !== 0) throw new Error(`bun run ${name}\n${output.join('')}`)
}

/** Serves what `bun run build` wrote, with the address of the service under test. */
function serveBuilt(serviceUrl: () => string) {
  return Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    async fetch({ url }) {
      const { pathname } = new URL(url)
      const file = Bun.file(join(example, 'dist', pathname === '/' ? 'index.html' : pathname))
      if (!file.name!.endsWith('.html')) return new Response(file)
      const html = (await file.text()).replace('http://127.0.0.1:8000', serviceUrl())
      return new Response(html, { headers: { 'content-type': 'text/html' } })
    },
  })
}
