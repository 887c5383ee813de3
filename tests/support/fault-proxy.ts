import { connect, createServer, type Socket } from 'node:net'
import { listenOnFreePort, withPort } from './ports.ts'
import { createMessageReader, queryMessage } from './postgres-messages.ts'

export type FaultProxy = Awaited<ReturnType<typeof startFaultProxy>>

/** What a new connection meets: the server, silence, or the end. */
type Reception = 'forward' | 'hold' | 'refuse'

/** How bytes travel on every connection. */
interface Flow {
  /** Milliseconds that every byte is late, in both directions. */
  delayMs: number
  /** Milliseconds between two reads of what the server sends: it has to wait in the middle of a long answer. */
  readEveryMs: number
  /** Answers of the server are lost; requests still reach it. */
  losesAnswers: boolean
}

type Ending = 'close' | 'reset'

/** Longer than any transaction may last. */
const injectionMs = 5000

/** A TCP proxy in front of a PostgreSQL server, for everything that can go wrong on the way. */
export async function startFaultProxy(serverPort: number) {
  const links = new Set<Link>()
  const held = new Set<Socket>()
  const flow: Flow = { delayMs: 0, readEveryMs: 0, losesAnswers: false }
  let reception: Reception = 'forward'

  const listener = createServer({ allowHalfOpen: true }, client => {
    client.on('error', () => client.destroy())
    if (reception === 'refuse') return client.destroy()
    if (reception === 'hold') return hold(client)
    const link = createLink(client, serverPort, flow)
    links.add(link)
    client.on('close', () => links.delete(link))
  })
  const port = await listenOnFreePort(listener)

  function hold(client: Socket) {
    held.add(client)
    client.on('data', () => {}).on('close', () => held.delete(client))
    client.on('end', () => client.destroy())
  }

  return {
    flow,
    /** The same address of a database, through the proxy. */
    through: (url: string) => withPort(url, port),
    /** How many connections are open to the server. */
    connections: () => links.size,
    /** How many connections are held without an answer. */
    held: () => held.size,
    receive(as: Reception) {
      reception = as
    },
    /** Ends every connection to the server at once. */
    drop(how: Ending = 'close') {
      for (const link of links) link.end(how)
    },
    /** The same for those that are held. */
    dropHeld(how: Ending = 'close') {
      for (const socket of held) endSocket(socket, how)
    },
    /** Each open connection passes on this number of bytes of answers, then it ends. */
    cutAfter(bytes: () => number) {
      for (const link of links) link.cutAfter(bytes())
    },
    /** Sends the end of the stream in one direction only, on every connection. */
    halfClose(towards: 'client' | 'server') {
      for (const link of links) link.halfClose(towards)
    },
    /**
     * Runs a statement in the server's session behind every connection, between two statements of the client, which
     * sees nothing of it. Resolves when each connection has had it or has ended; a transaction that lasts is a failure.
     */
    async inject(statement: string) {
      const injected = Promise.all([...links].map(link => link.inject(statement)))
      const given = await Promise.race([injected, Bun.sleep(injectionMs)])
      if (!given) throw new Error('a transaction is not ended')
    },
    /** Everything as if the proxy were not there. */
    heal() {
      reception = 'forward'
      Object.assign(flow, { delayMs: 0, readEveryMs: 0, losesAnswers: false })
    },
    async stop() {
      for (const link of links) link.end('close')
      for (const socket of held) socket.destroy()
      await new Promise(resolve => listener.close(resolve))
    },
  }
}

type Link = ReturnType<typeof createLink>

/** One connection through the proxy. */
function createLink(client: Socket, serverPort: number, flow: Flow) {
  const server = connect({ host: '127.0.0.1', port: serverPort, allowHalfOpen: true })
  const toServer = createChannel(server, flow)
  const toClient = createChannel(client, flow)
  const session = createSession()
  const injections: { statement: string; done: () => void }[] = []
  /** What the client has sent since a statement of ours is on its way. */
  let kept: Buffer[] | undefined
  let bytesUntilCut = Number.POSITIVE_INFINITY

  client.on('data', (chunk: Buffer) => (kept ? kept.push(chunk) : forward(chunk)))
  client.on('end', () => server.end())
  server.on('data', onAnswer)
  server.on('end', () => client.end())
  server.on('error', () => end('close'))
  for (const socket of [client, server]) socket.on('close', () => end('close'))

  function forward(chunk: Buffer) {
    session.fromClient.read(chunk)
    toServer.send(chunk)
  }

  function onAnswer(chunk: Buffer) {
    session.fromServer.read(chunk)
    if (kept) return afterInjection()
    if (flow.readEveryMs > 0) {
      server.pause()
      setTimeout(() => server.resume(), flow.readEveryMs)
    }
    if (flow.losesAnswers) return
    if (chunk.length < bytesUntilCut) {
      bytesUntilCut -= chunk.length
      toClient.send(chunk)
      injectNext()
    } else {
      client.end(chunk.subarray(0, bytesUntilCut))
      bytesUntilCut = 0
      server.destroy()
    }
  }

  function injectNext() {
    if (kept || injections.length === 0 || !session.isIdle) return
    kept = []
    const message = queryMessage(injections[0]!.statement)
    session.fromClient.read(message)
    server.write(message)
  }

  /** The server's whole answer to an injection is thrown away; then the client's turn comes. */
  function afterInjection() {
    if (!session.isIdle) return
    injections.shift()?.done()
    const waiting = kept ?? []
    kept = undefined
    for (const chunk of waiting) forward(chunk)
    injectNext()
  }

  function end(how: Ending) {
    endSocket(client, how)
    endSocket(server, how)
    for (const { done } of injections.splice(0)) done()
  }

  return {
    end,
    cutAfter(bytes: number) {
      bytesUntilCut = bytes
    },
    halfClose(towards: 'client' | 'server') {
      if (towards === 'client') client.end()
      else server.end()
    },
    inject(statement: string): Promise<void> {
      return new Promise(resolve => {
        injections.push({ statement, done: resolve })
        if (client.destroyed || server.destroyed) end('close')
        else injectNext()
      })
    },
  }
}

/** Whose turn it is in a session: idle when everything that was asked is answered and no transaction is open. */
function createSession() {
  /** The server reports once by itself when the session begins. */
  let unanswered = 1
  let isGroupOpen = false
  let isInTransaction = false

  const fromServer = createMessageReader('server', (type, firstByte) => {
    if (type !== 'Z') return
    unanswered--
    isInTransaction = String.fromCharCode(firstByte) !== 'I'
  })
  const fromClient = createMessageReader('client', type => {
    if (type === 'ssl') return fromServer.expectBareByte()
    const endsGroup = type === 'S' || type === 'Q'
    if (endsGroup) unanswered++
    isGroupOpen = !endsGroup && type !== 'startup' && type !== 'p'
  })

  return {
    fromClient,
    fromServer,
    get isIdle() {
      return unanswered === 0 && !isGroupOpen && !isInTransaction && fromClient.isAtStart
    },
  }
}

/** Writes to a socket, late when the flow says so, and always in order. */
function createChannel(socket: Socket, flow: Flow) {
  const late: { chunk: Buffer; at: number }[] = []

  function sendDue() {
    while (late[0] && late[0].at <= performance.now()) socket.write(late.shift()!.chunk)
    if (late[0]) setTimeout(sendDue, late[0].at - performance.now())
  }

  return {
    send(chunk: Buffer) {
      if (flow.delayMs === 0 && late.length === 0) return void socket.write(chunk)
      if (late.push({ chunk, at: performance.now() + flow.delayMs }) === 1) setTimeout(sendDue, flow.delayMs)
    },
  }
}

function endSocket(socket: Socket, how: Ending) {
  if (how === 'reset') socket.resetAndDestroy()
  else socket.destroy()
}
