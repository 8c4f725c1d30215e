"""Files that are no data although they lie where data is expected: by their first bytes, or by a desktop's names."""

from __future__ import annotations

START = 512
"""Bytes of a file that tell what it is."""

UTF_16 = "is text in UTF-16, not UTF-8; convert it"

STARTS = {
    b"version https://git-lfs": "is a pointer of git's large-file storage, not the file; fetch it with git lfs pull",
    b"\x1f\x8b": "is a gzip file; unpack it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"BZh": "is a bzip2 file; unpack it",
    b"\xfd7zXZ\x00": "is an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "is a zstandard file; unpack it",
    b"PAR1": "is a parquet file; give it a name that ends in .parquet",
    b"\xff\xfe\x00\x00": "is text in UTF-32, not UTF-8; convert it",
    b"\x00\x00\xfe\xff": "is text in UTF-32, not UTF-8; convert it",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
}
"""First bytes -> what such a file is, and the remedy."""

MARKUP = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")
LEFT = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
STARTS_LEFT = (".", "~$")
ENDS_LEFT = ("~", ".bak", ".swp", ".tmp", ":zone.identifier")


def explain(start: bytes, *, markup: bool = False) -> str | None:
    """Say what a file is by its first bytes, None where it may be plain text; a text may be `markup`."""
    known = next((text for magic, text in STARTS.items() if start.startswith(magic)), None)
    if known is not None:
        return known
    if not markup and start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(MARKUP):
        return "is a web page, not the data; download the file itself"
    # Letters of UTF-16 have a zero byte each, also where no mark says so.
    return UTF_16 if len(start) > 1 and 3 * start.count(0) > len(start) else None


def is_left_by_desktop(name: str) -> bool:
    """Check whether a file's name is one that desktops and editors leave: hidden, a backup, a lock, an index."""
    lower = name.lower()
    autosaved = lower.startswith("#") and lower.endswith("#")
    return lower in LEFT or autosaved or lower.startswith(STARTS_LEFT) or lower.endswith(ENDS_LEFT)
