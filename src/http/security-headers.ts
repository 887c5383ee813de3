/**
 * What every answer says, unless a route says otherwise: the Swagger page has a content policy of its own, its files
 * and a task with an `ETag` a cache rule of their own. `Strict-Transport-Security` is for the proxy that ends TLS.
 */
export const securityHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  // For browsers that know no `frame-ancestors`.
  'x-frame-options': 'DENY',
}
