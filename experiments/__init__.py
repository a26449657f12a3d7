"""Commands whose numbers docs/LOG.md reports."""
