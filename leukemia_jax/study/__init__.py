"""The published study's grid of runs, on cached features."""
