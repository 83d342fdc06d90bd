"""The only importer of asyncio and aiohttp: transport, reconcile loop, state file, API."""
