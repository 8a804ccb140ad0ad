"""Make values fit to be stored: without secrets, within limits, as JSON can hold them."""
