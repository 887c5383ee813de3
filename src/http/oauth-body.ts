import { Elysia, t } from 'elysia'
import type { AppError, ErrorCode, Problem } from '../lib/errors.ts'
import { mapValues } from '../lib/map-values.ts'
import { body } from './body.ts'
import type { FailureFields } from './error-handler.ts'
import {
  byStatus,
  describe,
  documented,
  errorBody,
  type errors,
  validationFailedBody,
} from './error-responses.ts'

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
const oauthValidationFailedBody = t.Object(
  { ...validationFailedBody.properties, ...oauthFields },
  { title: 'OAuthValidationFailed' },
)

/** `errors` for a route behind `oauthBody`. */
export const oauthErrors = <Code extends ErrorCode = never>(...codes: Code[]) =>
  documented<OAuthErrorResponses<ReturnType<typeof errors<Code>>>>(() =>
    mapValues(byStatus(codes), (own, status) => {
      const { description, examples = [] } = describe(own)
      return {
        ...(status === '422' ? oauthValidationFailedBody : oauthErrorBody),
        description,
        examples: examples.map(example => ({ ...example, ...oauthError(example as AppError) })),
      }
    }),
  )

type OAuthErrorResponses<Responses> = {
  [Status in keyof Responses]: Status extends 422 ? typeof oauthValidationFailedBody : typeof oauthErrorBody
}

/**
 * `body()` for a token endpoint: it also accepts forms, and the failures of the routes after it carry, beside the common
 * shape, the error of RFC 6749, 5.2.
 */
export const oauthBody = () =>
  new Elysia({ name: 'oauth-body' })
    .derive((): { failureFields: FailureFields } => ({ failureFields: oauthError }))
    .use(body({ forms: true }))
    .guard({ response: oauthErrors('body_too_large', 'neither_form_nor_json', 'validation_failed') })
    .as('scoped')
