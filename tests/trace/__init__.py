"""Traces: what a run reads, draws and decides."""
