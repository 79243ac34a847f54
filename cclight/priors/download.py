"""Fetching a large file once: resumed where the connection broke, verified, and visible only when it is complete."""

from __future__ import annotations

import hashlib
import os
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError


class CheckpointError(ValueError):
    """A checkpoint cannot be had, read or used; the message says which and what to do."""


def download(url: str, target: Path, sha256: str | None = None, attempts: int = 5) -> Path:
    """Fetch a file once. A broken connection is resumed where it stopped, in this call or in a later one.

    Args:
        url: an http or https address.
        target: the file to write; it appears only when it is complete and verified. Processes may race for it: one fetches.
        sha256: its checksum in hexadecimal or the first digits of it, where they are known.
        attempts: how often to connect before giving up.

    Returns:
        target.

    Raises:
        CheckpointError: where the server refuses, the connection keeps breaking or the checksum differs.
    """
    from filelock import FileLock

    if target.is_file():  # before the lock: a cache that others keep may be read-only
        return target
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():
            return target
        for attempt in range(attempts):
            try:
                _continue_download(url, part)
                break
            except (OSError, HTTPException) as error:
                # No answer at all is no broken connection: without a network nobody shall wait for five attempts.
                silent = isinstance(error, URLError) and not hasattr(error, "code") and not part.exists()
                refused = silent or 400 <= getattr(error, "code", 0) < 500
                if refused or attempt == attempts - 1:
                    raise CheckpointError(
                        f"{url} cannot be fetched ({error}): run again to continue, or save the file by hand as {target}"
                    ) from error
                time.sleep(2**attempt - 1)
        if sha256 is not None:
            try:
                verify(part, sha256, url)
            except CheckpointError:
                part.unlink()
                raise
        os.replace(part, target)
    return target


def _continue_download(url: str, part: Path) -> None:
    """Append to `part` what is missing of the file. Raises OSError where the connection breaks before the end."""
    import urllib.error
    import urllib.request

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing left to send: `part` is the whole file, or longer than it and of another version.
        if error.headers.get("Content-Range", "") != f"bytes */{have}":
            part.unlink()
            raise ConnectionError(f"the server's file is not the one begun in {part.name}, which starts anew") from error
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with response, Progress(*columns, console=Console(stderr=True)) as progress:
        if response.status != 206:
            have = 0  # the server sends the file from its start
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        task = progress.add_task(url.rsplit("/", 1)[-1], total=total, completed=have)
        with open(part, "ab" if have else "wb") as file:
            while block := response.read(1 << 20):
                file.write(block)
                progress.update(task, advance=len(block))
    received = part.stat().st_size
    if total is not None and received < total:
        raise ConnectionError(f"the connection broke after {received} of {total} bytes")


def verify(file: Path, sha256: str, source: str) -> None:
    """Compare a file's checksum with the publisher's.

    Args:
        file: the file.
        sha256: what it should be, in hexadecimal, or the first digits of that.
        source: where the file comes from, for the error.

    Raises:
        CheckpointError: where they differ.
    """
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(sha256):
        raise CheckpointError(
            f"{source} has the sha256 {found}, its publisher says {sha256}: it is damaged or was replaced; fetch it again."
        )
