import { afterEach, describe, expect, jest, spyOn, test } from 'bun:test'
import { AppError } from '../src/lib/errors.ts'
import { type Job, schedule } from '../src/server/jobs.ts'
import { createLog } from '../src/telemetry/log.ts'
import { until } from './support/until.ts'

const undo: (() => unknown)[] = []
afterEach(async () => {
  for (const step of undo.splice(0)) await step()
})

function start(...jobs: Job[]) {
  const lines: string[] = []
  const log = createLog({ level: 'debug', pretty: false, write: text => void lines.push(text) })
  const background = schedule(jobs, log)
  undo.push(() => background.stop())
  return {
    background,
    log: () => {
      log.flush()
      return lines.flatMap(text => text.trimEnd().split('\n')).map(line => JSON.parse(line))
    },
  }
}

describe('a job', () => {
  test('runs for the first time after its period, give or take a tenth, so that replicas spread', () => {
    const timers = spyOn(globalThis, 'setTimeout')
    const random = spyOn(Math, 'random')
    undo.push(() => [timers, random].map(spy => spy.mockRestore()))
    const delays = [0, 0.5, 0.999].map(value => {
      random.mockReturnValue(value)
      start({ name: 'x', everySeconds: 600, run: async () => {} })
      return Math.round((timers.mock.lastCall![1] as number) / 1000)
    })

    expect(delays).toEqual([540, 600, 660])
  })

  test('runs again and again, and never twice at a time', async () => {
    let running = 0
    let runs = 0
    const atOnce: number[] = []
    start({
      name: 'x',
      everySeconds: 0.01,
      async run() {
        atOnce.push(++running)
        await Bun.sleep(30)
        running--
        runs++
      },
    })
    await until(() => runs >= 5)

    expect(new Set(atOnce)).toEqual(new Set([1]))
  })

  test('runs after those of its period that were given before it, so that a database that sleeps is woken once', async () => {
    const done: string[] = []
    const slow = (name: string, everySeconds: number) => ({
      name,
      everySeconds,
      async run() {
        done.push(`${name} begins`)
        await Bun.sleep(30)
        done.push(`${name} ends`)
      },
    })
    const { background } = start(slow('a', 0.01), slow('b', 0.01), slow('other', 600))
    await until(() => done.length >= 8)
    await background.stop()

    expect(done.slice(0, 8)).toEqual(['a', 'b', 'a', 'b'].flatMap(name => [`${name} begins`, `${name} ends`]))
  })

  test('that fails is reported by its name, and runs again', async () => {
    let runs = 0
    const { log } = start(
      {
        name: 'fails',
        everySeconds: 0.01,
        async run() {
          if (++runs < 3) throw new AppError('internal', { cause: new Error('broken') })
        },
      },
      { name: 'well', everySeconds: 0.01, run: async () => {} },
    )
    await until(() => runs >= 4)

    const failure = { level: 'error', msg: 'job failed', job: 'fails', error: 'Error', message: 'broken' }
    expect(log()).toMatchObject([failure, failure])
  })

  test('that finds no database is not reported, and runs again', async () => {
    let runs = 0
    const { log } = start({
      name: 'x',
      everySeconds: 0.01,
      async run() {
        runs++
        throw new Error('wrapped', { cause: new AppError('unavailable') })
      },
    })
    await until(() => runs >= 3)

    expect(log()).toEqual([])
  })

  test('that is under way is awaited by a stop, after which none begins', async () => {
    const begun = Promise.withResolvers<void>()
    const end = Promise.withResolvers<void>()
    let runs = 0
    let isStopped = false
    const { background } = start({
      name: 'x',
      everySeconds: 0.01,
      run() {
        runs++
        begun.resolve()
        return end.promise
      },
    })
    await begun.promise
    const stopped = background.stop().then(() => {
      isStopped = true
    })
    await Bun.sleep(50)
    expect(isStopped).toBe(false)

    end.resolve()
    await stopped
    await Bun.sleep(50)
    expect(runs).toBe(1)
  })
  test('whose turn has not come is not begun after a stop', async () => {
    jest.useFakeTimers()
    undo.push(() => jest.useRealTimers())
    let runs = 0
    const { background } = start({
      name: 'x',
      everySeconds: 10,
      async run() {
        runs++
      },
    })
    await background.stop()
    jest.advanceTimersByTime(20_000)

    expect(runs).toBe(0)
  })
})
