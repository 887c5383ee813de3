/** Waits until a program has ended, and reads what it has written. */
export async function outcomeOf(child: Bun.ReadableSubprocess) {
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { exitCode, stdout, stderr }
}
