"""Another edge for a product that is up: apart from its core, which it reaches over a socket."""

import contextlib
import re
from collections.abc import AsyncIterator

import httpx2

from hydrasms_app.compose import running_edge
from hydrasms_app.settings import Settings
from tests.support.product import Product, client_of
from tests.support.waiting import eventually


class SplitProduct(Product):
    """A product whose REST API is that of an edge apart."""

    def __init__(self, product: Product, http: httpx2.AsyncClient) -> None:
        super().__init__(product.server, http, {"tcp": product.tcp.channel}, product.target, product.data_dir)


@contextlib.asynccontextmanager
async def split_edge(product: Product) -> AsyncIterator[SplitProduct]:
    """Serve an edge apart for a product that is up."""
    here = Settings(http_port=0, data_dir=product.data_dir)
    apart = here.model_copy(update={"core_address": product.server.core_addresses[0]})
    async with running_edge(apart) as edge, client_of(edge.http_port) as http:

        async def is_ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(is_ready, what="an edge apart that is ready")
        yield SplitProduct(product, http)


async def forwarded(client: httpx2.AsyncClient) -> tuple[int, int]:
    """Return how many sends an edge has passed on so far, and in how many calls."""
    text = (await client.get("/metrics")).text
    sends, calls = (
        sum(
            float(value)
            for value in re.findall(
                rf"^hydrasms_forwarded_{what}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE
            )
        )
        for what in ("sends", "batches")
    )
    return round(sends), round(calls)
