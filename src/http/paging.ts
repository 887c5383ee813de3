/** The headers of a page of a list: where the next one is (RFC 8288), and how many there are in all. */
export function pageHeaders(
  request: Request,
  page: { next: string | undefined; total?: number | undefined },
) {
  const headers: Record<string, string> = {}
  if (page.next !== undefined) headers.link = `<${nextAddress(request.url, page.next)}>; rel="next"`
  if (page.total !== undefined) headers['x-total-count'] = String(page.total)
  return headers
}

/** The address that was asked for, from the path on: which scheme and host the client sees, a proxy does not tell us. */
function nextAddress(url: string, cursor: string): string {
  // Cut by hand: the URL class takes 8 µs for this, a seventh of what the whole answer costs apart from the database.
  const address = url.slice(url.indexOf('/', 'https://'.length))
  // Only the first `?` ends the path: the others belong to values.
  const [path] = address.split('?', 1)
  const kept = address
    .slice(path!.length + 1)
    .split('&')
    .filter(part => part !== '' && !/^(cursor|offset)=/.test(part))
  return `${path}?${[...kept, `cursor=${cursor}`].join('&')}`
}
