/**
 * Headers of every response, unless a route sets its own: the Swagger page has its own content policy; its files and
 * pages of lists with an `ETag` have their own cache rules. `Strict-Transport-Security` is for the proxy that ends TLS.
 */
export const securityHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  // For browsers without `frame-ancestors`.
  'x-frame-options': 'DENY',
}
