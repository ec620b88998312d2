"""Losses, scores and intervals: functions of predictions and truth."""
