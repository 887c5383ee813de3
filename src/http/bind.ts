/** Starts a server. Throws an Error that names the address and the settings for it, and says what to do. */
export function bind<Server>(
  { host, port }: { host: string; port: number },
  start: () => Server,
  names = { host: 'HOST', port: 'PORT' },
): Server {
  try {
    return start()
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    const where = `${urlHost(host)}:${port}`
    const sentences: Record<string, string> = {
      EADDRINUSE: `${where} is in use by another process: stop it, or set ${names.port} to a free port`,
      EACCES: `${where} needs a privilege: set ${names.port} to 1024 or more, or grant CAP_NET_BIND_SERVICE`,
    }
    // Of a name that does not resolve Bun has whatever code the system used last.
    const other = `cannot listen on ${host} (${code}): set ${names.host} to an address of this machine, or to 0.0.0.0 for all of them`
    throw code ? new Error(sentences[code] ?? other, { cause: error }) : error
  }
}

/** A host as written in a URL. */
export const urlHost = (host: string) => (host.includes(':') ? `[${host}]` : host)
