"""From media to what is counted: frame features, overlay texts, spoken words. Each an interface with a default."""
