"""uvicorn that ends when it is told to, instead of at its next tenth of a second.

A run waits for its gateways to end before its result is read, so their polling would be a fifth of a second of
every run, and two idle gateways would wake a processor twenty times a second.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn


class PromptServer(uvicorn.Server):
    """For listeners whose only client is dead when the end comes: requests still under way are cancelled."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Stop serving. Called in the loop's thread."""
        self.should_exit = True
        self.force_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for item in sockets or []:
            item.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel("the gateway ends")
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self.servers:
            await server.wait_closed()
