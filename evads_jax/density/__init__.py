"""Information density: how much there is to see, hear and read in a second of video."""
