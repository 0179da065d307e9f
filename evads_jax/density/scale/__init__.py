"""Many videos: guarded decoding, work items with dead letters, worker processes, Apache Beam."""
