/**
 * For `bun --preload` in a process of its own: writes what is synced, linked and renamed to stderr, one line each, in
 * its order. With NO_LINKS the file system has no hard links.
 */
const fs = require('node:fs') as Record<string, (...args: unknown[]) => unknown>
const { openSync, fsyncSync, linkSync, renameSync } = fs
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
fs.linkSync = (from, to) => {
  if (process.env.NO_LINKS)
    throw Object.assign(new Error('no hard links here'), { code: process.env.NO_LINKS })
  linkSync!(from, to)
  note(`link ${from} ${to}`)
}
fs.renameSync = (from, to) => {
  renameSync!(from, to)
  note(`rename ${from} ${to}`)
}
