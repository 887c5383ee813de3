/**
 * The running file, even if an upgrade has replaced it: a process that this one starts has its version. The executable
 * finds its program by itself; Bun needs the file to run.
 */
export const runningProgram: [string, ...string[]] = Bun.isStandaloneExecutable
  ? ['/proc/self/exe']
  : [process.execPath, Bun.main]
