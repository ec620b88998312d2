"""Images of blood smears: sources, records, splits, synthetic fields."""
