/** Whether a code is one of PostgreSQL (SQLSTATE). It holds a digit; EPERM and EROFS are the system's. */
export const isSqlState = (code: unknown): code is string =>
  typeof code === 'string' && /^(?=.*\d)[0-9A-Z]{5}$/.test(code)
