const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether a text can be compared with a `uuid` column (RFC 9562); anything else would be an error of PostgreSQL's. */
export const isUuid = (value: string) => pattern.test(value)
