"""The RPC contract, case by case, over every transport: in memory, over TCP, and over the REST API where it has
an equivalent. `cases/README.md` says how a case is written.
"""

from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.case_runner import CaseRun
from tests.support.cases import METHODS, REASONS, load_cases
from tests.support.product import product_in

CASES = load_cases(Path(__file__).with_name("cases"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def products(template_database, tmp_path_factory):
    """Two products for all cases, by whether they have a dispatcher; every case brings accounts of its own."""
    folder = tmp_path_factory.mktemp("products")
    async with (
        product_in(folder / "still", template_database, dispatcher=False) as still,
        product_in(folder / "moving", template_database) as moving,
    ):
        yield {False: still, True: moving}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("case", "transport"),
    [
        pytest.param(case, transport, id=f"{case.name} [{transport}]")
        for case in CASES
        for transport in case.transports
    ],
)
async def test_contract(products, case, transport):
    await CaseRun(case, products[case.given.dispatcher]).over(transport)
