"""The policy of the pre-copy, simulated beside other rules; see docs/policy.md."""
