"""What `nacre bench` runs: scenarios and baselines as data, one rig of pinned processes, samples, figures, results."""
