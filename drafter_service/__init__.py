"""The drafter service: a thin door around `nacre.runtime.draft_worker` and a proposer."""
