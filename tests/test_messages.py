"""No password and no terminal command in what a user is shown."""

import pytest

from damcrack.messages import shown, without_passwords

SECRET = "Tr0ub4dor"
SPELLINGS = (
    f"http://me:{SECRET}@host:5000/x",
    f"HTTPS://Me:{SECRET}@host",
    f"http://me:{SECRET}/more@host/x",
    f"http://me:{SECRET}@more@host/x",
    f"http://me:a {SECRET}@host/x",
    f"http://me:a%40{SECRET}@host/x",
    f"http://me:12/{SECRET}@host",
    f"http://me:{SECRET}#?&=@host",
    f"http://:{SECRET}@host",
    f"https://{SECRET}@host/repository.git",
    f"http:/me:{SECRET}@host",
    f"postgresql+psycopg://me:{SECRET}@[::1]:5432/mlflow",
    f"postgresql://host/mlflow?user=me&password={SECRET}",
    f"https://host/bucket/x?X-Amz-Signature={SECRET}&X-Amz-Expires=5",
    f"https://host/bucket/x?X-Amz-Credential={SECRET}",
    f"s3://KEY:{SECRET}/x+y@bucket/photos",
    f"s3://{SECRET}@bucket/photos",
)


@pytest.mark.parametrize("address", SPELLINGS)
def test_no_spelling_of_an_address_shows_a_password(address: str) -> None:
    """Alone, in quotes and in a sentence with other addresses."""
    for text in (address, f"'{address}' did not answer (models:/crack@champion)", f"at {address}: x@y.z"):
        assert SECRET not in without_passwords(text)
        assert SECRET not in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/api says no",
        "http://[::1]:5000",
        "http://host:5000, not http://other:80: ask me@host",
        "sqlite:////a/b@c.db",
        "models:/crack@champion",
        "s3://bucket/2026/IMG@2x.jpg",
        "s3://bucket/flight.mp4@00:12",
        "2026-05-04 10:22@cam.jpg: no photo",
    ],
)
def test_other_text_stays(text: str) -> None:
    """Addresses without a password, names of objects with an @, aliases."""
    assert without_passwords(text) == text


def test_a_name_cannot_command_a_terminal() -> None:
    """Escape sequences and marks that turn text around are shown as numbers; letters and lines stay."""
    assert shown("a\x1b]0;owned\x07\x9b2J\u202egpj.exe") == "a\\x1b]0;owned\\x07\\x9b2J\\u202egpj.exe"
    assert shown("é 日本\nnext\tcolumn") == "é 日本\nnext\tcolumn"
