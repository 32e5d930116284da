"""The engine: CRIU's RPC, its log, and the image files that phaul reads itself."""
