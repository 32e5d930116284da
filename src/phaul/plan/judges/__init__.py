"""The judges of the preflight, one a kind of facts.  Pure; `plan.judge` calls them all."""
