/** SHA-256, hex: what the database stores of a token, which it must not know itself. */
export const sha256 = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex')
