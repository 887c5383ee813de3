import { failureOf } from './cli/failure.ts'
import { say } from './cli/terminal.ts'

const words = process.argv.slice(2)
try {
  // The port is open sooner without the other commands and their parser.
  if (words.length === 0 || (words.length === 1 && words[0] === 'serve')) {
    const { serveCommand } = await import('./cli/serve.ts')
    await serveCommand()
  } else {
    const { runCommand } = await import('./cli/program.ts')
    await runCommand(words)
  }
} catch (error) {
  const { message, exitCode } = failureOf(error)
  if (message) say(message)
  process.exit(exitCode)
}
