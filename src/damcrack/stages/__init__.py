"""Stages of the graph: plain functions of paths and a frozen config, one module each."""
