import type { TObject } from '@sinclair/typebox'
import { Elysia, t } from 'elysia'
import type { FailureFields } from '../../http/error-handler.ts'
import { errorBody, errors, validationErrorBody } from '../../http/schema.ts'
import type { AppError, ErrorCode, Problem } from '../../lib/errors.ts'

/** The routes registered after it add the error of an OAuth 2 token endpoint (RFC 6749, 5.2) to the common shape. */
export const oauthErrors = new Elysia({ name: 'oauth-errors' })
  .decorate({ failureFields: undefined as FailureFields })
  .onTransform({ as: 'scoped' }, context => {
    context.failureFields = oauthError
  })

/** RFC 6749 has no code for a server in trouble at the token endpoint; these two are its codes of the authorization endpoint. */
const oauthCodes: Partial<Record<ErrorCode, string>> = {
  incorrect_login: 'invalid_grant',
  invalid_token: 'invalid_grant',
  too_many_requests: 'temporarily_unavailable',
  unavailable: 'temporarily_unavailable',
  internal: 'server_error',
}

function oauthError({ code, detail }: AppError) {
  const problems = typeof detail === 'string' ? [] : detail
  const description =
    typeof detail === 'string' ? detail : detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join('; ')
  return {
    error: oauthCodes[code] ?? (problems.some(isUnknownGrant) ? 'unsupported_grant_type' : 'invalid_request'),
    // The RFC allows printable ASCII without quotation marks and backslashes.
    error_description: description.replace(/[^\x20-\x7e]|["\\]/g, "'"),
  }
}

const isUnknownGrant = ({ loc, type }: Problem) => loc.at(-1) === 'grant_type' && type === 'literal_error'

const oauthFields = {
  error: t.String({ description: 'The code of RFC 6749, 5.2.', examples: ['invalid_grant'] }),
  error_description: t.String({
    description: '`detail` in one line of ASCII.',
    examples: ['Incorrect email or password'],
  }),
}
const oauthErrorBody = t.Object({ ...errorBody.properties, ...oauthFields }, { title: 'OAuthError' })
const oauthValidationErrorBody = t.Object(
  { ...validationErrorBody.properties, ...oauthFields },
  { title: 'OAuthValidationError' },
)

const bodyErrors = ['body_too_large', 'unsupported_media_type', 'validation_failed'] as const

/** `errors` for a route behind `oauthErrors`; those of `body()` have the OAuth 2 fields too. */
export function oauthResponses<Code extends ErrorCode>(...codes: Code[]) {
  const responses = errors<Code | (typeof bodyErrors)[number]>(...codes, ...bodyErrors)
  const entries = Object.entries<TObject>(responses).map(([status, { description, examples = [] }]) => [
    status,
    {
      ...(status === '422' ? oauthValidationErrorBody : oauthErrorBody),
      description,
      examples: examples.map((example: AppError) => ({ ...example, ...oauthError(example) })),
    },
  ])
  return Object.fromEntries(entries) as {
    [Status in keyof typeof responses]: Status extends 422
      ? typeof oauthValidationErrorBody
      : typeof oauthErrorBody
  }
}
