import type { TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { findProblems } from '../../http/problems.ts'

/** bcrypt as passlib and others write it; a cost beyond 16 would keep a core busy for a minute at each login. */
const bcryptHash = /^\$2[abxy]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$/

export const isPasswordHash = (text: string): boolean => bcryptHash.test(text)

/** Makes a check of a value: `undefined` when it fits the schema, else what is wrong with it, in one line. */
export function createCheck(schema: TSchema): (value: unknown) => string | undefined {
  const compiled = TypeCompiler.Compile(schema)
  return value => {
    if (compiled.Check(value)) return undefined
    const problems = findProblems({ body: { schema, value } })
    return problems.map(({ loc, msg }) => [loc.slice(1).join('.'), msg].filter(Boolean).join(': ')).join('; ')
  }
}
