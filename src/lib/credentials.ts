/** What an e-mail address and a new password must be: for requests, commands and settings alike. */

/** `local@domain.tld`, trimmed, at most 254 characters (RFC 5321). */
export const emailPattern =
  /^\s*(?=\S{3,254}\s*$)[^\s@"(),:;<>[\]\\\p{C}]{1,64}@[^\s@"(),:;<>[\]\\\p{C}.]+(\.[^\s@"(),:;<>[\]\\\p{C}.]+)+\s*$/u

export const passwordLengthMin = 8
/** bcrypt reads at most this many bytes of a password. */
export const passwordBytesMax = 72

/** Whether a text may become a password; its length counts code points. */
export const isNewPassword = (text: string): boolean =>
  [...text].length >= passwordLengthMin && Buffer.byteLength(text) <= passwordBytesMax && !text.includes('\0')
