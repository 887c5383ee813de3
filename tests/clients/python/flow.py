"""What every user of the service does, with a client that a generator wrote: `flow.py ADAPTER URL`."""

import importlib
import sys
import uuid
from urllib.parse import parse_qs, urlsplit


def expect(seen, wanted):
    if seen != wanted:
        raise SystemExit(f"expected {wanted!r}, got {seen!r}")


def main(adapter, url):
    api = importlib.import_module(adapter).Client(url)
    email, password = f"{uuid.uuid4()}@example.com", "correct horse battery"

    expect(api.register(email, "short")[0], 422)
    expect(api.register(email, password)[0], 201)
    status, _, tokens = api.sign_in(email, password)
    expect(status, 200)
    status, _, refreshed = api.refresh(tokens.refresh_token)
    expect(status, 200)
    expect(refreshed.refresh_token == tokens.refresh_token, False)
    api.authorize(refreshed.access_token)

    ids = []
    for title in ("one", "two", "three"):
        status, _, task = api.create(title, ["a, b"])
        expect((status, task.title), (201, title))
        ids.append(str(task.id))

    status, headers, task = api.read(ids[0])
    expect((status, task.title), (200, "one"))
    etag = headers["etag"]
    expect(api.read(ids[0], if_none_match=etag)[0], 304)
    expect(api.complete(ids[0], etag)[0], 200)
    expect(api.complete(ids[0], etag)[0], 412)

    query = {"status": ["pending", "in_progress"], "tag": ["a, b", "c"], "limit": 1}
    _, headers, page = api.list(**query)
    expect([str(task.id) for task in page], [ids[2]])
    link = headers["link"].split("<")[1].split(">")[0]
    _, headers, page = api.list(**query, cursor=parse_qs(urlsplit(link).query)["cursor"][0])
    expect([str(task.id) for task in page], [ids[1]])
    expect("link" in headers, False)

    status, _, batch = api.batch(title="four", outdated=ids[0], invalid="no id")
    expect((status, [int(result.status) for result in batch.results]), (200, [201, 412, 422]))

    expect(api.remove(ids[0])[0], 204)
    expect(api.read(ids[0])[0], 404)

    for _ in range(20):
        status, headers, _ = api.sign_in(email, "wrong password")
        if status != 401:
            break
    expect(status, 429)
    expect(int(headers["retry-after"]) > 0, True)


main(*sys.argv[1:])
