"""What a failure may say is bounded."""

from __future__ import annotations

from openwhisk.worker.execute import shorten


def test_short_text_stays() -> None:
    assert shorten("a" * 10, 10) == "a" * 10


def test_long_text_keeps_both_ends() -> None:
    text = shorten("a" * 1000 + "b" * 1000, 100)
    assert text.startswith("a" * 50)
    assert text.endswith("b" * 50)
    assert "1900 characters" in text


def test_what_cannot_be_encoded_is_escaped() -> None:
    assert shorten("\ud800", 100) == "\\ud800"
