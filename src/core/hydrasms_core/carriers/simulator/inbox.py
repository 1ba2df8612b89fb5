"""What one may look up on simulated phones."""

from hydrasms_core.carriers.simulator import store
from hydrasms_core.carriers.simulator.store import SimulatedText
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import InvalidRecipient
from hydrasms_core.messaging.numbering import parse_recipient
from hydrasms_core.paging import Page, page_of, page_request


class Inbox:
    """The texts on simulated phones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_texts(self, recipient: str, size: int, token: str) -> Page[SimulatedText]:
        """Return one page of what reached a phone, newest first; raises InvalidRecipient."""
        try:
            phone = parse_recipient(recipient).e164
        except ValueError as error:
            raise InvalidRecipient(str(error), field="recipient") from None
        page = page_request(size, token, scope=f"inbox:{phone}")
        rows = await self._database.read(lambda tx: store.list_texts(tx, phone, page))
        return page_of(rows, [row.id for row in rows], page)
