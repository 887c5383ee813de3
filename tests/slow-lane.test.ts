import { expect, test } from 'bun:test'
import { createSlowLane } from '../src/db/slow-lane.ts'

test('as long as nothing is slow, everything is admitted and nobody is a suspect', () => {
  const lane = createSlowLane(4)
  for (let i = 0; i < 10; i++) expect(lane.enter('a', i)).toBe(false)
  expect(lane.admits('a', 10)).toBe(true)
})

test('slow statements share half of the connections, and one that was quick meanwhile takes any', () => {
  const lane = createSlowLane(4)
  lane.learn('slow', 1000, 0)
  expect([lane.enter('slow', 1), lane.enter('slow', 1)]).toEqual([true, true])
  lane.learn('quick', 1, 1)

  expect(lane.admits('slow', 2)).toBe(false)
  expect(lane.admits('quick', 2)).toBe(true)
  lane.leave('slow')
  expect(lane.admits('slow', 3)).toBe(true)
})

test('an unknown statement has one connection to show what it is', () => {
  const lane = createSlowLane(2)
  lane.learn('slow', 1000, 0)
  lane.enter('slow', 1)

  expect(lane.admits('new', 1)).toBe(true)
  lane.enter('new', 1)
  expect(lane.admits('new', 1)).toBe(false)
  lane.leave('new')
  lane.learn('new', 1000, 1000)
  expect(lane.admits('new', 1001)).toBe(false)
})

test('a slow statement that is quick again is no suspect any more, and soon nobody is', () => {
  const lane = createSlowLane(2)
  lane.learn('a', 1000, 0)
  lane.learn('b', 1000, 0)
  lane.learn('a', 1, 10)

  expect([lane.enter('a', 11), lane.enter('b', 11)]).toEqual([false, true])
  expect(lane.enter('b', 6000)).toBe(false)
})
