"""A run on disk: who owns the folder, checkpoints, the result."""

CONFIG = 'config.json'
SPLIT = 'split.json'
METRICS = 'metrics.jsonl'
RESULT = 'result.json'
LATEST = 'checkpoints/latest'
BEST = 'checkpoints/best'
ROWS = 'rows'
