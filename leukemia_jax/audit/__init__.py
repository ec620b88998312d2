"""What simple numbers already give away of a set."""
