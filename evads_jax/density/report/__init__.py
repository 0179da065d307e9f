"""From the lines of videos.jsonl to corpus.json, tables, plots and one page."""
