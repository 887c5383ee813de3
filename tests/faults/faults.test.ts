import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { pgbouncer } from '../support/pgbouncer.ts'
import { faults, pooledFaults } from './catalogue.ts'
import { type Fault, openStage } from './stage.ts'

/**
 * FAULT_SECONDS=600 goes on for that long with all faults in random order; FAULT_SEED=… makes the same choices as the
 * run that printed it; FAULTS=cancelled,frozen runs only the faults whose names contain one of these words.
 */
const seconds = Number(process.env.FAULT_SECONDS ?? 0)
const seed = Number(process.env.FAULT_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0])
const chosen = process.env.FAULTS?.split(',')
/** How long one fault goes on, in seconds, in the tests of each and in the long run. */
const faultSeconds = 0.3
const longFaultSeconds = 3

if (!pgbouncer)
  process.stderr.write('\nNOT RUN: the faults behind PgBouncer, because there is none in PATH.\n')

describe(`64 clients get whole answers to their own requests, and lose no write (FAULT_SEED=${seed})`, () => {
  let opened: Awaited<ReturnType<typeof openStage>>

  beforeAll(async () => {
    opened = await openStage({ seed, seconds: faultSeconds })
    expect(opened.stage.tally.failures()).toEqual([])
  }, 60_000)
  afterAll(async () => {
    process.stdout.write(`\nFAULT_SEED=${seed}\n${opened?.stage.tally.report()}\n`)
    await opened?.close()
  }, 60_000)

  describe('on a server, while', () => play(faults, seconds))
  describe.skipIf(!pgbouncer)('behind PgBouncer, while', () => {
    beforeAll(() => opened.usePool(), 60_000)
    play(pooledFaults, seconds / 5)
  })

  function play(all: Fault[], longSeconds: number) {
    const list = all.filter(({ name }) => chosen?.some(word => name.includes(word)) ?? true)
    if (list.length === 0) return

    for (const fault of list) {
      test(fault.name, async () => expect(await opened.play(fault)).toEqual([]), 60_000)
    }

    if (longSeconds > 0) {
      test(
        `all of this happens for ${longSeconds} s`,
        async () => {
          opened.stage.seconds = longFaultSeconds
          const end = performance.now() + longSeconds * 1000
          while (performance.now() < end) {
            for (const fault of opened.stage.random.shuffled(list)) {
              if (performance.now() < end) await opened.play(fault)
            }
          }
          opened.stage.seconds = faultSeconds
          expect(opened.stage.tally.failures()).toEqual([])
        },
        (longSeconds + 120) * 1000,
      )
    }
  }
})
