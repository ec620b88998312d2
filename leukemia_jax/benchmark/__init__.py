"""How fast a config's programs run, beside the machine's limits and others."""
