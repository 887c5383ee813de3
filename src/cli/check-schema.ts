import type { TSchema } from '@sinclair/typebox'
import { createCheck as createProblemCheck } from '../http/problems.ts'
import { text } from '../http/schema.ts'

/** bcrypt as passlib and others write it. A cost above 16 would take a core a minute for each sign-in. */
export const passwordHash = text({
  pattern: /^\$2[abxy]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$/,
  wanted: 'a bcrypt hash',
})

/** Compiles a check that returns `undefined` for a valid value, else its problems in one line. */
export function createCheck(schema: TSchema): (value: unknown) => string | undefined {
  const check = createProblemCheck(schema)
  return value => {
    const problems = check(value)
    if (problems.length === 0) return undefined
    return problems.map(({ loc, msg }) => [loc.slice(1).join('.'), msg].filter(Boolean).join(': ')).join('; ')
  }
}
