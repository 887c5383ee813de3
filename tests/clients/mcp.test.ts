import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import {
  Client as NewClient,
  StreamableHTTPClientTransport as NewTransport,
} from '@modelcontextprotocol/client'
import { Client as OldClient } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as OldTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { newPlace, type Place } from '../support/command.ts'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'

/** What an assistant's program does with any of the clients. */
interface Assistant {
  tools(): Promise<{ name: string }[]>
  call(
    name: string,
    args?: object,
  ): Promise<{ structuredContent?: any; isError?: boolean | undefined; content: any }>
  /** The revision that was agreed on. */
  revision(): string | undefined
  close(): Promise<void>
}

type Connect = (url: URL, token: string) => Promise<Assistant>

const info = { name: 'test', version: '1' }
const bearer = (token: string) => ({ requestInit: { headers: { authorization: `Bearer ${token}` } } })

const newClient =
  (mode: 'auto' | 'legacy'): Connect =>
  async (url, token) => {
    const client = new NewClient(info, { versionNegotiation: { mode } })
    await client.connect(new NewTransport(url, bearer(token)))
    return {
      tools: async () => (await client.listTools()).tools,
      call: async (name, args = {}) => (await client.callTool({ name, arguments: { ...args } })) as any,
      revision: () => client.getNegotiatedProtocolVersion(),
      close: () => client.close(),
    }
  }

const oldClient: Connect = async (url, token) => {
  const client = new OldClient(info)
  const transport = new OldTransport(url, bearer(token))
  await client.connect(transport as Parameters<typeof client.connect>[0])
  return {
    tools: async () => (await client.listTools()).tools,
    call: async (name, args = {}) => (await client.callTool({ name, arguments: { ...args } })) as any,
    revision: () => transport.protocolVersion,
    close: () => client.close(),
  }
}

/** The inspector's command line: a process for each call. */
const inspector: Connect = async (url, token) => {
  const bin = join(import.meta.dir, 'node_modules/.bin/mcp-inspector')
  async function run(...args: string[]) {
    const child = Bun.spawn(
      [process.execPath, bin, '--cli', url.href, '--header', `Authorization: Bearer ${token}`, ...args],
      { stdout: 'pipe', stderr: 'pipe', timeout: 30_000 },
    )
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
    if (!stdout.startsWith('{')) throw new Error(`${args.join(' ')}: ${stdout}${stderr}`)
    return JSON.parse(stdout)
  }
  return {
    tools: async () => (await run('--method', 'tools/list', '--strict')).tools,
    call: (name, args = {}) =>
      run(
        ...['--method', 'tools/call', '--tool-name', name],
        ...Object.entries(args).flatMap(([key, value]) => ['--tool-arg', `${key}=${JSON.stringify(value)}`]),
      ),
    revision: () => undefined,
    close: async () => {},
  }
}

type Case = [name: string, connect: Connect, revision: string | undefined]

const libraries: Case[] = [
  ['client v2', newClient('auto'), '2026-07-28'],
  ['client v2 as of 2025', newClient('legacy'), '2025-11-25'],
  ['client v1', oldClient, '2025-11-25'],
]
/** The inspector takes some seconds, and what it tries does not depend on the database. */
const clientsOf: Record<'embedded' | 'postgres', Case[]> = {
  embedded: [...libraries, ['inspector', inspector, undefined]],
  postgres: libraries,
}

describe.each(['embedded', 'postgres'] as const)('the executable (%s)', kind => {
  let place: Place
  let service: Running
  beforeAll(async () => {
    place = await newPlace(kind)
    service = await startExecutable(place.env)
    await untilReady(service)
  }, 120_000)
  afterAll(async () => {
    await service?.stop()
    await place?.remove()
  })

  test.each(clientsOf[kind])(
    '%s lists the tools, finds, adds, changes, completes, deletes and restores',
    async (_, connect, revision) => {
      const assistant = await connect(new URL(`${service.url}/mcp`), (await service.user()).token)
      expect(assistant.revision()).toBe(revision)
      expect((await assistant.tools()).map(({ name }) => name)).toContain('find_tasks')

      const added = await assistant.call('add_tasks', {
        tasks: [{ title: 'Buy milk' }, { title: 'Call Bob' }],
      })
      const [milk, bob] = added.structuredContent.tasks
      const found = await assistant.call('find_tasks', { q: 'milk' })
      expect(found.structuredContent).toEqual({ tasks: [milk], cursor: null })
      expect(JSON.parse(found.content[0].text)).toEqual(found.structuredContent)

      const changed = await assistant.call('update_task', {
        id: milk.id,
        version: milk.version,
        title: 'Milk',
      })
      expect(changed.structuredContent).toMatchObject({ id: milk.id, title: 'Milk' })
      const late = await assistant.call('update_task', { id: milk.id, version: milk.version, title: 'Bread' })
      expect(late.isError).toBe(true)
      expect(JSON.parse(late.content[0].text)).toMatchObject({
        code: 'precondition_failed',
        current: changed.structuredContent,
      })
      const wrong = await assistant.call('find_tasks', { limt: 1 })
      expect([wrong.isError, wrong.content[0].text.includes("'limit'")]).toEqual([true, true])

      const completed = await assistant.call('complete_task', { id: milk.id })
      expect(completed.structuredContent.status).toBe('completed')
      expect((await assistant.call('delete_task', { id: bob.id })).structuredContent.deleted).toEqual([
        bob.id,
      ])
      expect((await assistant.call('task_stats')).structuredContent).toMatchObject({ total: 1, trash: 1 })
      expect((await assistant.call('restore_task', { id: bob.id })).structuredContent.title).toBe('Call Bob')
      await assistant.close()
    },
    60_000,
  )
})

test('the calls of docs/mcp.md work as they stand', async () => {
  const text = await Bun.file(join(import.meta.dir, '../../docs/mcp.md')).text()
  const script = /```sh\n(.*?)```/s.exec(text)![1]!
  const service = await startExecutable({ ENVIRONMENT: 'test', BCRYPT_COST: '4' })
  try {
    await untilReady(service)
    await service.user('ada@example.com')
    const run = Bun.spawn(['bash', '-euo', 'pipefail'], {
      stdin: new Blob([script.replaceAll('http://127.0.0.1:8000', service.url)]),
      stdout: 'pipe',
    })
    const { result } = JSON.parse(await run.stdout.text())
    expect(result.structuredContent).toMatchObject({ total: 0 })
  } finally {
    await service.stop()
  }
}, 60_000)
