"""Products as they appear in three domains: page, short video, live stream (ROPE's layout, or drawn)."""
