"""Signs in and refreshes at one endpoint with Authlib; prints both pairs of tokens."""

import json
import sys

from authlib.integrations.httpx_client import OAuth2Client

endpoint, username, password = sys.argv[1:]
client = OAuth2Client("any", "thing", token_endpoint=endpoint)
tokens = dict(client.fetch_token(username=username, password=password))
renewed = dict(client.refresh_token(refresh_token=tokens["refresh_token"]))
print(json.dumps([tokens, renewed]))
