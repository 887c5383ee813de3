/** The largest request body of most routes, in bytes. */
export const bodyBytesMax = 32 * 1024

/** The largest of all, a batch. Bun stops reading a connection when about as much of a body waits to be read. */
export const largestBodyBytes = 1024 * 1024
