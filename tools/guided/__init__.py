"""Which features of a constraint each guided-decoding backend enforces: found out, written into docs, checked by tests."""
