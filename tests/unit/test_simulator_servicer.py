"""hydrasms.carriers.v1.SimulatorService: what its servicer answers."""

from hydrasms.carriers.v1 import simulator_service_pb2 as simulator_pb
from hydrasms_core.carriers.simulator import inbox
from hydrasms_core.carriers.simulator.servicer import SimulatorServicer
from hydrasms_core.carriers.simulator.store import SimulatedText
from tests.support.accounts import NoDatabase
from tests.support.servicers import Servicing

SIMULATOR = simulator_pb.DESCRIPTOR.services_by_name["SimulatorService"]
AT_MS = 1_780_049_700_007


def test_texts_on_a_phone_are_packed_as_they_are(monkeypatch):
    class Texts:
        async def list_texts(self, tx, recipient, page):
            return [SimulatedText("s1", "m1", "+2899682626", recipient, "Grüße", AT_MS)] * (page.size + 1)

    monkeypatch.setattr(inbox, "store", Texts())
    answer = Servicing(SIMULATOR, SimulatorServicer(NoDatabase())).call(
        "ListInbox", simulator_pb.ListInboxRequest(recipient="+447700900000", page_size=1)
    )
    (text,) = answer.response.texts
    assert (text.id, text.sender, text.recipient, text.content) == (
        "s1",
        "+2899682626",
        "+447700900000",
        "Grüße",
    )
    assert text.received_at.ToMilliseconds() == AT_MS
    assert answer.response.next_page_token != ""
