import { CommanderError } from 'commander'
import { failureOf } from './cli/failure.ts'
import { runCommand } from './cli/program.ts'
import { say } from './cli/terminal.ts'

try {
  await runCommand(process.argv.slice(2))
} catch (error) {
  // Commander has printed its help or its message already.
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2)
  const { message, exitCode } = failureOf(error)
  if (message) say(message)
  process.exit(exitCode)
}
