import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { projectFiles } from './support/project-files.ts'

const root = join(import.meta.dir, '..')

/** Where the words are looked for: not in data, images, licenses, the migrations of former versions and this file. */
const files = projectFiles().filter(
  path => !/\.(jsonl?|lock|txt|svg|webp)$|^(LICENSE$|tests\/(fixtures\/|words\.test\.ts$))/.test(path),
)

/** Words that make a reader guess who acts or what is meant, and what to write instead. */
const avoided: [word: RegExp, instead: string][] = [
  // The operating system has a user of this name.
  [
    /(?<![`^=/])\b(no|some|any|every)body\b(?!`)/i,
    'name the actor: the client, the worker, another session, no caller',
  ],
  [/\bwhoever\b/i, 'name the actor: the client, the operator, the next caller'],
  [/\b(persons?|people)\b/i, 'write user, users, as the tables and the API do'],
  [/\bthe first service\b/i, 'write the FastAPI service'],
  [/\banew\b/i, 'write again'],
  [/\bso many\b/i, 'say how many: at most N, `count`'],
  [/\btakes? it for\b|\bwould rather\b/i, 'write what happens: the planner estimates, prefers, chooses'],
  [/\blets? go of\b/i, 'write releases, closes'],
  [/\bhears\b/i, 'write receives'],
  [/\bwell (again|after|within)\b/i, 'write answers again'],
  [/\bdoors?\b/i, 'write listener, connection'],
  [/\bmend(s|ed)?\b/i, 'write correct, repair, fix'],
  [/\b(is|are|was|were) told\b(?! apart)/i, 'write is reported, is named, receives'],
  [/\bgives (?!up)/i, 'write returns, sends, assigns'],
]

test.each(avoided)('%p is nowhere: %s', (word, instead) => {
  const found = files.flatMap(path =>
    readFileSync(join(root, path), 'utf8')
      .split('\n')
      .flatMap((line, i) => (word.test(line) ? [`${path}:${i + 1}: ${line.trim()} (${instead})`] : [])),
  )

  expect(found).toEqual([])
})

test('the words are looked for in every folder', () => {
  const folders = new Set(files.flatMap(path => path.match(/^([^/]+)\//)?.[1] ?? []))

  expect([...folders].sort()).toEqual([
    '.ci',
    '.github',
    'deploy',
    'docs',
    'drizzle',
    'examples',
    'scripts',
    'src',
    'tests',
  ])
})
