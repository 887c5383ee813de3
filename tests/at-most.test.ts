import { expect, test } from 'bun:test'
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
