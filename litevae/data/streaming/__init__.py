"""Hugging Face datasets and tar shards. The rest of `litevae.data` imports from here, not from the files behind.

hub.py reads the datasets library, shards.py tar files. Where images can only be read in sequence, shard_assignment.py
says which process reads what, and stream_samples.py makes samples of it.
"""

from litevae.data.streaming.hub import DatasetSource, Stream, open_row_stream, open_rows, open_shard_stream
from litevae.data.streaming.shard_assignment import StreamStart, resume_readers, shard_count
from litevae.data.streaming.shards import ShardSource, find_shards, is_remote, shard_folder
from litevae.data.streaming.stream_samples import (
    StreamSamples,
    content_digest,
    examples,
    spread_examples,
    usable_examples,
)

__all__ = [
    "DatasetSource",
    "ShardSource",
    "Stream",
    "StreamSamples",
    "StreamStart",
    "content_digest",
    "examples",
    "find_shards",
    "is_remote",
    "open_row_stream",
    "open_rows",
    "open_shard_stream",
    "resume_readers",
    "shard_count",
    "shard_folder",
    "spread_examples",
    "usable_examples",
]
