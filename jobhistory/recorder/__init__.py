"""Record in the background: calls return at once, and a thread writes in batches."""

from jobhistory.recorder.intake import RecorderCounts
from jobhistory.recorder.recorder import Recorder

__all__ = ["Recorder", "RecorderCounts"]
