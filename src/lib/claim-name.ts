/**
 * Reserves a name until `stop`, or until the process ends: an abstract socket, which the kernel removes. Throws an error with
 * the code EADDRINUSE when another process has it. Linux has such names, one set for each network namespace; elsewhere this
 * does nothing.
 */
export function claimName(name: string): { stop(): void } | undefined {
  if (process.platform !== 'linux') return undefined
  const socket = Bun.listen({
    unix: `\0todo-api ${name}`,
    socket: { open: client => void client.end(), data() {} },
  })
  socket.unref()
  return socket
}
