"""From nothing to a run on a TPU slice and back: plan, launch, supervise, collect. Standard library only."""
