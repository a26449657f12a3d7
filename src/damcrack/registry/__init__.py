"""Which model is in service: evaluation set, promotion gate, model versions."""
