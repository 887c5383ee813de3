/** `bun run build`: makes dist/todo-api, the whole program in one file. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'

process.chdir(join(import.meta.dir, '..'))
const outfile = 'dist/todo-api'

// Built aside and moved in one step: another build, or a program that runs from the last one, is not disturbed.
mkdirSync('dist', { recursive: true })
const folder = mkdtempSync('dist/.build-')
try {
  await Bun.build({
    entrypoints: ['src/main.ts'],
    target: 'bun',
    minify: true,
    // The executable carries its source map: a stack in the log names files and lines of src/.
    sourcemap: 'inline',
    compile: {
      outfile: join(folder, 'todo-api'),
      // What lies in the folder that it is started from must not change what it does.
      autoloadBunfig: false,
      autoloadDotenv: false,
    },
  })
  renameSync(join(folder, 'todo-api'), outfile)
} finally {
  rmSync(folder, { recursive: true })
}
console.log(`${outfile}  ${Math.round(statSync(outfile).size / 1e6)} MB`)
