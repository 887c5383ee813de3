/** Prints what the program prints with these words. */
type Show = (...words: string[]) => Promise<string>

/** The names that a help text lists under "Commands:". */
function commandsIn(help: string): string[] {
  const [list = ''] = help.split('Commands:')[1]?.split('\n\n') ?? []
  return [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name!)
}

/** The help of the program, and of each command and subcommand that it lists. */
export async function allHelp(show: Show, ...words: string[]): Promise<string> {
  const help = await show(...words, '--help')
  let text = `$ todo-api ${[...words, '--help'].join(' ')}\n${help}\n`
  for (const name of commandsIn(help)) if (name !== 'help') text += await allHelp(show, ...words, name)
  return text
}

if (import.meta.main) {
  const main = `${import.meta.dir}/../../src/main.ts`
  const show: Show = async (...words) =>
    Bun.spawnSync([process.execPath, '--no-env-file', main, ...words]).stdout.toString()
  await Bun.write(`${import.meta.dir}/../fixtures/help.txt`, await allHelp(show))
}
