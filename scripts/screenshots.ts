/**
 * `bun scripts/screenshots.ts`: makes the pictures of README from the built program: the Swagger page in Chromium, and
 * a start at a terminal. Needs Linux, `script` (util-linux) and Chromium.
 */
import { mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromiumPath, launchChromium } from '../tests/support/chromium.ts'
import { executablePath, startExecutable, untilReady } from '../tests/support/executable.ts'

const images = join(import.meta.dir, '../docs/images')
const columns = 112

/** What a terminal shows at the first start of the program, and when it is then asked how it is. */
async function terminalSession(): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-screenshot-'))
  try {
    symlinkSync(await executablePath(), join(folder, 'todo-api'))
    const session = `
      stty cols ${columns}
      echo '$ ./todo-api &'
      ./todo-api & service=$!
      until ./todo-api doctor 2>&1 | grep -q 'all .* applied'; do sleep 0.1; done
      sleep 1
      echo '$ ./todo-api doctor'
      ./todo-api doctor
      kill $service && wait`
    const child = Bun.spawn(['script', '--quiet', '--return', '--command', session, '/dev/null'], {
      cwd: folder,
      env: { PATH: process.env.PATH, HOME: folder, TERM: 'xterm', SHELL: '/bin/bash' },
      stdin: 'ignore',
    })
    // Any folder will do in a picture, but not this one.
    const shown = (await child.stdout.text()).replaceAll(realpathSync(folder), '/home/ada')
    const lines = shown.split(/\r?\n/)
    return lines.slice(
      0,
      lines.findIndex(line => / stopping /.test(line)),
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const lineHeight = 20
const charWidth = 8.1
const margin = { x: 22, y: 52 }

/** Draws lines as a terminal does, those that are too long in several rows. */
function terminalPicture(lines: string[]): string {
  const rows = lines.flatMap(line =>
    line.includes('\x1b') ? [line] : (line.match(new RegExp(`.{1,${columns}}`, 'g')) ?? ['']),
  )
  const texts = rows.map((row, i) => {
    const kind = row.startsWith('$ ') ? ' class="command"' : ''
    const plain = Bun.stripANSI(row)
    const text = Bun.escapeHTML(plain).replace(/^✓/, '<tspan class="ok">✓</tspan>')
    // The given length keeps columns aligned whatever font there is.
    const length = Math.round(plain.length * charWidth)
    return `<text${kind} x="${margin.x}" y="${margin.y + i * lineHeight}" textLength="${length}">${text}</text>`
  })
  const size = [Math.ceil(columns * charWidth + 2 * margin.x), margin.y + rows.length * lineHeight + 6]
  const buttons = [0, 1, 2].map(i => `<circle cx="${26 + i * 20}" cy="20" r="6"/>`).join('')
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${size[0]}" height="${size[1]}" viewBox="0 0 ${size.join(' ')}">
<title>The first start of todo-api, and todo-api doctor</title>
<style>
text { font: 13.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #c3ccd6; white-space: pre }
.command { fill: #fff; font-weight: 600 }
.ok { fill: #56d364 }
circle { fill: #3b4654 }
</style>
<rect width="100%" height="100%" rx="10" fill="#161b22"/>
${buttons}
${texts.join('\n')}
</svg>
`
}

/** The top of the page, with the operations on tasks in sight. */
async function swaggerPage(): Promise<Uint8Array> {
  if (!chromiumPath) throw new Error('there is no Chromium in PATH')
  const service = await startExecutable()
  const browser = await launchChromium()
  try {
    await untilReady(service)
    const page = await browser.newPage({ viewport: { width: 1200, height: 1100 } })
    await page.goto(`${service.url}/docs`)
    for (const tag of ['auth', 'users']) await page.locator(`#operations-tag-${tag}`).click()
    await page.locator('#operations-auth-register').waitFor({ state: 'detached' })
    await page.mouse.move(0, 0)
    const png = await page.screenshot()
    return new Bun.Image(png).webp({ quality: 80 }).bytes()
  } finally {
    await browser.close()
    await service.stop()
  }
}

await Bun.write(join(images, 'start.svg'), terminalPicture(await terminalSession()))
await Bun.write(join(images, 'swagger.webp'), await swaggerPage())
