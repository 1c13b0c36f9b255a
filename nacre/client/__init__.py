"""Python client of a gateway or verifier: asyncio and blocking, with an optional drafter inside (device mode)."""

from nacre.client.asynchronous import AsyncClient
from nacre.client.blocking import Client
from nacre.client.generation import Generation, Piece, Request, Retry, Statistics

__all__ = ["AsyncClient", "Client", "Generation", "Piece", "Request", "Retry", "Statistics"]
