"""What phaul costs, as ratios of one run; see bench/README.md."""
