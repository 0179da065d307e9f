"""Cross-domain retrieval of products: exact metrics, one-shot classification, tables, and a page of results."""
