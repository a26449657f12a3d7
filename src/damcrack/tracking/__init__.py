"""One MLflow run per stage; a server that is away costs no number."""
