"""Following events with the real programs, as the guide says, over a restart."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

from tests.support.served import Served, printed_key, served


@contextlib.contextmanager
def stream(server: Served, key: str, after: str = "") -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    ) as connection:
        connection.request("GET", "/v1/events", headers={"Authorization": key, "Last-Event-ID": after})
        with connection.getresponse() as response:
            yield response


def block(response: http.client.HTTPResponse) -> dict[str, str]:
    """Return the next block that is no comment."""
    found: dict[str, str] = {}
    while True:
        line = response.readline().decode()
        assert line, "the stream has ended"
        if line == "\n":
            if found:
                return found
        elif not line.startswith(":"):
            name, _, value = line.removesuffix("\n").partition(": ")
            found[name] = value


def test_a_stream_tells_what_became_of_a_message_and_goes_on_after_a_restart(tmp_path: Path):
    with served(tmp_path / "var") as server:
        assert "webhooks   may go to this host as well" in server.output_file.read_text()
        key = printed_key(server)
        with stream(server, key) as following:
            assert (following.status, following.headers["Content-Type"]) == (200, "text/event-stream")
            place = block(following)["id"]
            sent = server.send(key, "to a phone").body
            event = block(following)
            assert event["event"] == "message_status_changed"
            status = json.loads(event["data"])["messageStatus"]
            assert (status["messageId"], status["status"]) == (sent["ID"], "MESSAGE_STATUS_DELIVERED")
            assert event["id"] != place
            assert server.terminate() == 0
            # It was ended, and not cut off.
            assert following.read() == b""
        server.start()
        with stream(server, key, place) as again:
            assert block(again)["id"] == place
            assert block(again) == event
