"""The detector that ships with the package, made again by `make detector`."""
