/**
 * For `bun --preload` in a process of its own: writes what is synced and renamed to stderr, one line each, in its
 * order.
 */
const fs = require('node:fs') as Record<string, (...args: unknown[]) => unknown>
const { openSync, fsyncSync, renameSync } = fs
const paths = new Map<unknown, unknown>()
const note = (line: string) => void process.stderr.write(`${line}\n`)

fs.openSync = (path, ...rest) => {
  const descriptor = openSync!(path, ...rest)
  paths.set(descriptor, path)
  return descriptor
}
fs.fsyncSync = descriptor => {
  fsyncSync!(descriptor)
  note(`sync ${paths.get(descriptor)}`)
}
fs.renameSync = (from, to) => {
  renameSync!(from, to)
  note(`rename ${from} ${to}`)
}
