/** What was found about one thing, and what to do. */
export interface Finding {
  verdict: 'ok' | 'warn' | 'fail'
  check: string
  about: string
  cure?: string | undefined
}

export type Verdict = Pick<Finding, 'verdict' | 'cure'>
export const ok: Verdict = { verdict: 'ok' }
export const warn = (cure: string): Verdict => ({ verdict: 'warn', cure })
export const fail = (cure?: string): Verdict => ({ verdict: 'fail', cure })

/** Takes what was found about one thing. */
export type Tell = (check: string, about: string, verdict: Verdict) => void
