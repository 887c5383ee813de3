/**
 * The bytes of a base64url text (RFC 4648, 5); `undefined` for any other text. Buffer also accepts `=`, spaces, `+/` and
 * another last character, so that a token would have many texts.
 */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
