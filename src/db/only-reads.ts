/** Whether a statement only reads, judged by its words. A false negative is harmless. */
export function onlyReads(text: string): boolean {
  return /^\s*(select|with|values|show|explain)\b/i.test(text) && !writeWords.test(text)
}

const writeWords = /\b(insert|update|delete|merge|into|nextval|setval)\b/i
