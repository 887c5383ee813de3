/**
 * `bun scripts/failover-rehearsal.ts [PROMOTIONS]`: the built executable on a primary with a synchronous standby, under
 * load; the primary is killed and the standby promoted, again and again. Prints what was answered, what is lost, and how
 * long the service refused. Exit code 1 when anything is lost. Needs PostgreSQL's programs.
 */
import { startExecutable, untilReady } from '../tests/support/executable.ts'
import { testSettings } from '../tests/support/harness.ts'
import { execute } from '../tests/support/postgres-server.ts'
import { addressOf, promote, startPair } from '../tests/support/standby.ts'
import { auditBooks, startTraffic } from '../tests/support/traffic.ts'

const promotions = Number(process.argv[2] ?? 5)
let wrong = 0
for (let round = 1; round <= promotions; round++) {
  const { primary, standby } = await startPair()
  const api = await startExecutable({ ...testSettings, DATABASE_URL: addressOf(primary, standby) })
  try {
    await untilReady(api)
    const traffic = startTraffic(api, await Promise.all(Array.from({ length: 5 }, () => api.user())))
    await traffic.more('answered', 500)

    await primary.kill()
    await traffic.more('refused', 30)
    await promote(standby)
    const refusedFor = traffic.measureRecovery()
    await traffic.more('answered', 500)

    const recovery = Math.round(refusedFor())
    const seen = await traffic.end()
    const sql = async (text: string) => (await execute(standby.url, text)).map(row => Object.values(row))
    const faults = [...seen.faults, ...(await auditBooks(api, seen, sql))]
    for (const fault of faults) console.error(fault)
    wrong += faults.length
    console.log(
      `promotion ${round}: ${seen.created.size} tasks and ${seen.changed.size} changes acknowledged, ` +
        `${seen.refused} refused with 503, ${faults.length} lost or wrong; ` +
        `ready ${recovery} ms after, slowest answer ${Math.round(seen.slowest)} ms`,
    )
  } finally {
    await api.stop()
    await Promise.all([primary.close(), standby.close()])
  }
}
console.log(`${promotions} promotions, ${wrong} lost or wrong`)
process.exit(wrong > 0 ? 1 : 0)
