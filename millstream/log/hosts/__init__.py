"""Where the log meets an event loop: the only modules of it that know asyncio and its threads."""
