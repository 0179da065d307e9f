"""Writes new questions about videos: five roles draft, criticise, revise and choose; each answer shows its evidence."""
