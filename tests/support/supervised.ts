/**
 * `bun supervised.ts LIMITS`: a supervisor of one worker with other limits, so that a test need not wait for the real
 * ones. The worker serves nothing: each line in the file `$SCRIPT` is what one worker after the other does.
 */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { parseConfig } from '../../src/config/config.ts'
import { supervise } from '../../src/server/cluster/supervisor.ts'
import { connectToSupervisor } from '../../src/server/cluster/worker-channel.ts'
import { createLog } from '../../src/telemetry/log.ts'

if (process.argv.at(-1) === 'worker') await work()
else {
  const env = { ...process.env, WORKERS: '2', PORT: '0' }
  const log = createLog({ level: 'info', pretty: false, write: lines => appendFileSync(1, lines) })
  const limits = JSON.parse(process.argv.at(-1)!)
  const exitCode = await supervise({ ...parseConfig(env), workers: 1 }, log, limits)
  log.flush()
  process.exit(exitCode)
}

/** `live MS`, `block MS` (nothing is answered meanwhile, and no signal stops it) or `fail`, then the end. */
async function work() {
  const { send } = await connectToSupervisor()
  const script = process.env.SCRIPT!
  const [step = 'live 60000', ...rest] = readFileSync(script, 'utf8').split('\n').filter(Boolean)
  writeFileSync(script, rest.join('\n'))
  const [what, ms] = step.split(' ')
  if (what === 'fail') process.exit(7)
  send('migrated')
  await Bun.sleep(100)
  if (what === 'block') {
    process.on('SIGTERM', () => {})
    Bun.sleepSync(Number(ms))
  } else await Bun.sleep(Number(ms))
  process.exit(0)
}
