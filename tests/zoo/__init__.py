"""Real models to compile: one module for each library they come from."""
