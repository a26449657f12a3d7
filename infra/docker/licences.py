"""Print the licence of every installed Python package, as a table: python licences.py > licences.tsv."""

from importlib.metadata import Distribution, distributions


def licence_of(package: Distribution) -> str:
    """What the package says of itself: an SPDX expression, else its classifiers, else the first line of its text."""
    said = package.metadata
    named = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier", []) if line.startswith("License ::")
    ]
    text = (said.get("License") or "").strip().partition("\n")[0]
    files = [str(file) for file in package.files or [] if "licen" in str(file).lower()]
    found = said.get("License-Expression") or "; ".join(named) or text or (f"see {files[0]}" if files else "")
    return found or "UNKNOWN"


if __name__ == "__main__":
    rows = {(one.metadata["Name"], one.version, licence_of(one)) for one in distributions()}
    for row in sorted(rows, key=lambda row: row[0].lower()):
        print(*row, sep="\t")
