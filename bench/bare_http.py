"""What the send benchmark divides by: a Starlette endpoint that parses, answers and does no more."""

import json
import sys
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_ID = "018f0000-0000-7000-8000-000000000000"


async def echo(request: Request) -> JSONResponse:
    """Answer a send as hydrasms would, from the parsed body alone."""
    body = await request.body()
    if request.headers["content-type"] == "application/json":
        fields = json.loads(body)
    else:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    recipient, content = fields["recipient"], fields["content"]
    return JSONResponse(
        {
            "ID": _ID,
            "sent_from": "+2899682626",
            "sent_to": recipient,
            "sent_to_parsed": {
                "isValid": True,
                "phoneNumber": recipient,
                "countryIso2": "GB",
                "countryIso3": "GBR",
                "countryCode": "+44",
            },
            "content": content,
            "owner": _ID,
            "creditCost": 1,
        }
    )


async def ready(_: Request) -> JSONResponse:
    """Say that the server is up."""
    return JSONResponse({})


app = Starlette(
    routes=[Route("/api/messages", echo, methods=["POST"]), Route("/readyz", ready, methods=["GET"])]
)


def main() -> None:
    """Serve on the port that the command line names."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
