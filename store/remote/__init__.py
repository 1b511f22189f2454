"""Groups on any file system that fsspec knows: ``s3://``, ``gs://``, ``memory://``, ... Needs ``stepscope[remote]``.

A recorder writes into a local spool folder, and a mirror uploads it; a reader fetches what is new into a local cache.
See docs/remote.md for what lies where, and ARCHITECTURE.md for why.
"""
