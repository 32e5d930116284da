"""phaul beside what people would do instead, in one run; see `bench.peers.__main__`."""
