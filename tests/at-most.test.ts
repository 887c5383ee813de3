import { expect, jest, test } from 'bun:test'
import { atMost } from '../src/lib/at-most.ts'

test('work whose time was over before it began is late, and the runtime does not warn of it', async () => {
  const warnings: string[] = []
  const note = ({ name }: Error) => warnings.push(name)
  process.on('warning', note)
  try {
    expect(await atMost(-5, new Promise<string>(() => {}), () => 'late')).toBe('late')
    await Bun.sleep(0)
  } finally {
    process.off('warning', note)
  }
  expect(warnings).toEqual([])
})

test('nothing waits any more when the work is done, well or not', async () => {
  jest.useFakeTimers()
  try {
    expect(await atMost(60_000, Promise.resolve('in time'), () => 'late')).toBe('in time')
    const failing = atMost(60_000, Promise.reject(new Error('failed')), () => 'late')
    expect(await failing.catch(String)).toBe('Error: failed')
    expect(jest.getTimerCount()).toBe(0)
  } finally {
    jest.useRealTimers()
  }
})
