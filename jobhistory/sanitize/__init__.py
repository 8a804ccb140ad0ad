"""Make values storable: as JSON, without secrets, within limits."""
