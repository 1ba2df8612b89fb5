"""Another edge for a product that is up: apart from its core, which it reaches over a socket."""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx2

from hydrasms_app.channel import way_to_core
from hydrasms_app.settings import Settings
from hydrasms_base.metrics import Metrics
from hydrasms_edge.app import create_app
from hydrasms_edge.settings import EdgeSettings
from tests.support.edge import served
from tests.support.product import Product, client_of


class SplitProduct(Product):
    """A product whose REST API is that of an edge apart."""

    def __init__(self, product: Product, http: httpx2.AsyncClient) -> None:
        super().__init__(product.server, http, {"tcp": product.tcp.channel}, product.target, product.data_dir)


@contextlib.asynccontextmanager
async def split_edge(product: Product, **settings: Any) -> AsyncIterator[SplitProduct]:
    """Serve an edge apart, with settings of its own, for a product that is up."""
    way = way_to_core(Settings().model_copy(update={"core_address": product.server.core_addresses[0]}))
    async with grpc.aio.insecure_channel(way.address.target, options=way.options) as channel:
        app = create_app(channel, product.server.token, Metrics(), EdgeSettings(**settings))
        async with served(app) as port, client_of(port) as http:
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
